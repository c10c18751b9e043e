"""The `trn` command."""

from opentrn import __version__


def main() -> int:
    print(f"trn {__version__}")
    return 0
