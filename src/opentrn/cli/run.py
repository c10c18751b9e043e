"""`trn run`: run a Python script with NKI kernels in it, as `python` would, on a simulated chip."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, TracebackType

import click

from opentrn.errors import OpenTrnError

__all__ = ["check", "command", "execute", "prepare"]


@click.command("run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--chip", metavar="NAME|FILE", help="Chip to run on: trn1, trn2, trn3, inf2, or a TOML file (default trn3)."
)
@click.option(
    "--uninitialized", type=click.Choice(["error", "warn", "ignore"]), default="error", show_default=True,
    help="What a use of memory never written does.",
)  # fmt: skip
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(chip: str | None, uninitialized: str, script: str, arguments: tuple[str, ...]) -> None:
    """Run a Python SCRIPT with `nki`, `neuronxcc.nki` and their companions importable.

    The script's own exit code is passed on. ARGUMENTS reach it in sys.argv.
    """
    os.environ["OPENTRN_UNINITIALIZED"] = uninitialized
    raise click.exceptions.Exit(execute(prepare(script, arguments, chip), script))


def prepare(script: str, arguments: Sequence[str], chip: str | None) -> CodeType:
    """Make the process ready for a script, as ``python SCRIPT ARGUMENTS`` would, with the public modules importable.

    Raises:
        OpenTrnError: the script cannot be read, or no such chip.
    """
    path = _script(script)
    if chip is not None:
        _choose_chip(chip)
    from opentrn.public_names import install

    install()
    code = _compiled(path)
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    return code


def check(script: str) -> None:
    """Refuse a script that is not there or not Python, before anything is started for it."""
    _compiled(_script(script))


def _script(script: str) -> Path:
    """The file to run; a directory with a __main__.py counts, as for python."""
    path = Path(script)
    if not path.exists():
        raise OpenTrnError(f"there is no script {script}")
    if path.is_dir():
        if not (path / "__main__.py").is_file():
            raise OpenTrnError(f"{script} is a directory without a __main__.py; give a Python script")
        path = path / "__main__.py"
    return path


def _choose_chip(chip: str) -> None:
    from opentrn import hardware

    hardware.chip(chip)  # refuses an unknown name with the names there are
    os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"] = chip


def _compiled(path: Path) -> CodeType:
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except OSError as error:
        raise OpenTrnError(f"cannot read {path}: {error.strerror}") from None
    except SyntaxError as error:
        sys.stderr.write("".join(traceback.format_exception_only(error)))
        raise click.exceptions.Exit(1) from None
    except ValueError as error:  # null bytes: not a Python file
        raise OpenTrnError(f"{path} is not a Python script: {error}") from None


def execute(code: CodeType, script: str) -> int:
    """Run the script as ``__main__``; returns its exit code. Its errors are shown, as `python` shows them, without our frames."""
    main = type(sys)("__main__")
    main.__dict__.update(__file__=script, __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    try:
        exec(code, main.__dict__)
    except SystemExit as leave:
        return _exit_code(leave.code)
    except (KeyboardInterrupt, BrokenPipeError):
        raise
    except OpenTrnError as error:
        if os.environ.get("OPENTRN_DEBUG", "0") not in ("", "0"):
            raise
        _say(str(error))
        return 1
    except BaseException as error:
        _show_traceback(error)
        return 1
    finally:
        _flush()
    return 0


def _exit_code(code: object) -> int:
    """What ``sys.exit(code)`` means."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    _say(str(code), prefix="")
    return 1


def _say(line: str, prefix: str = "trn: error: ") -> None:
    click.echo(f"{prefix}{line}", err=True)


def _flush() -> None:
    sys.stdout.flush()


def _show_traceback(error: BaseException) -> None:
    """The script's own exception, with the frames of the user's program only."""
    exception: BaseException | None = error
    seen: set[int] = set()
    while exception is not None and id(exception) not in seen:
        seen.add(id(exception))
        exception.__traceback__ = _without_ours(exception.__traceback__)
        exception = exception.__cause__ or exception.__context__
    sys.stderr.write("".join(traceback.format_exception(error)))


def _without_ours(found: TracebackType | None) -> TracebackType | None:
    from opentrn.neuroncore.source import is_ours

    kept = [tb for tb in _entries(found) if not is_ours(tb.tb_frame.f_code)]
    result: TracebackType | None = None
    for entry in reversed(kept):
        result = TracebackType(result, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return result


def _entries(found: TracebackType | None) -> list[TracebackType]:
    entries = []
    while found is not None:
        entries.append(found)
        found = found.tb_next
    return entries
