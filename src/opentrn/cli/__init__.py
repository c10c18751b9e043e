"""The `trn` command: one file a verb, imported when that verb is asked for, and one place where errors become lines.

A verb is a module of this package that exports a click command named `command`, with its name and summary in `_VERBS`.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

import click

from opentrn import __version__
from opentrn.errors import OpenTrnError

# Verb -> its line in `trn --help`. A verb whose file is not there is not listed.
_VERBS = {
    "run": "Run a Python script with NKI kernels or a neuron device in it.",
    "profile": "Show where a kernel's time goes.",
    "compare": "Compare two profiles.",
    "validate": "Compare the model with published measurements.",
    "estimate": "Estimate time, energy and price of a model on a chip.",
    "plan": "Choose a parallel layout for a training job.",
    "launch": "Run a distributed script on simulated chips.",
    "collectives": "Time collectives on a topology.",
    "claims": "Re-derive what vendors and the press claim.",
    "serve": "Serve a model over HTTP on a simulated chip.",
    "chips": "Show cores, chips, instances and where each figure comes from.",
}


class _LazyVerbs(click.Group):
    """A group that knows its verbs by name and imports one when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in _VERBS if find_spec(f"opentrn.cli.{verb}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        return import_module(f"opentrn.cli.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, _VERBS[verb]) for verb in self.list_commands(ctx)])


@click.group(cls=_LazyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trn", message="%(prog)s %(version)s")
def trn() -> None:
    """The AWS Trainium and Inferentia stack with no chips in it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `trn` and return its exit code: 1 for an error, 2 for wrong usage, 130 after Ctrl-C.

    Errors are one line on stderr. With OPENTRN_DEBUG=1 they keep their traceback.
    """
    if "_TRN_COMPLETE" in os.environ:
        trn.main(prog_name="trn")
    try:
        with trn.make_context("trn", list(sys.argv[1:] if arguments is None else arguments)) as context:
            trn.invoke(context)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output is gone (`trn chips | head`); keep Python from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OpenTrnError as error:
        if _debugging():
            raise
        return _fail(f"error: {error}", 1)
    except Exception as error:
        if _debugging():
            raise
        reason = " ".join(str(error).split()) or "no message"
        return _fail(f"internal error: {type(error).__name__}: {reason} (OPENTRN_DEBUG=1 shows the traceback)", 70)
    return 0


def _debugging() -> bool:
    return os.environ.get("OPENTRN_DEBUG", "0") not in ("", "0")


def _fail(line: str, code: int) -> int:
    click.echo(f"trn: {line}", err=True)
    return code
