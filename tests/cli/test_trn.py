"""The `trn` command itself: it starts light, lists the verbs that are there, turns errors into lines and exit codes."""

import os
import signal
import subprocess
import sys

import pytest

from opentrn import __version__, cli


def trn(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "opentrn", *arguments], capture_output=True, text=True, timeout=60, **options
    )


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """Give `trn` a verb `boom` with the body of the test's choice."""

    def install(body):
        source = f"import click\n\n@click.command()\ndef command():\n    {body}\n"
        (tmp_path / "boom.py").write_text(source)
        monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
        monkeypatch.setitem(cli._VERBS, "boom", "Explode.")

    yield install
    sys.modules.pop("opentrn.cli.boom", None)


def test_version():
    ran = trn("--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"trn {__version__}\n", "")


def test_starting_imports_nothing_heavy():
    heavy = ("numpy", "ml_dtypes", "numba", "torch", "rich", "pyarrow", "matplotlib")
    script = (
        "import sys, opentrn, opentrn.cli\n"
        "assert opentrn.cli.main(['--version']) == 0\n"
        "assert opentrn.cli.main(['--help']) == 0\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr


def test_looking_at_chips_imports_no_numpy():
    script = "import sys, opentrn.cli\nopentrn.cli.main(['chips'])\nprint('numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "False", ran.stderr


def test_help_lists_the_verbs_that_have_a_file_and_imports_none(verb, capsys, monkeypatch):
    verb("raise AssertionError")
    monkeypatch.setitem(cli._VERBS, "absent", "Has no file.")
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert "chips" in listed and "Explode." in listed and "absent" not in listed
    assert "opentrn.cli.boom" not in sys.modules


def test_a_verb_without_a_file_is_unknown(monkeypatch, capsys):
    monkeypatch.setitem(cli._VERBS, "absent", "Has no file.")
    assert cli.main(["absent"]) == 2
    assert "No such command 'absent'" in capsys.readouterr().err


def test_an_error_of_ours_is_one_line_and_exit_code_1(verb, capsys):
    verb("from opentrn.errors import ValidationError; raise ValidationError('129 partitions', ('k.py', 3))")
    assert cli.main(["boom"]) == 1
    assert capsys.readouterr().err == "trn: error: k.py:3: 129 partitions\n"


def test_a_bug_of_ours_shows_no_traceback_unless_asked_for(verb, capsys, monkeypatch):
    verb("raise ZeroDivisionError('oh\\nno')")
    assert cli.main(["boom"]) == 70
    error = capsys.readouterr().err
    assert error == "trn: internal error: ZeroDivisionError: oh no (OPENTRN_DEBUG=1 shows the traceback)\n"
    monkeypatch.setenv("OPENTRN_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["boom"])


def test_an_exit_code_of_a_verb_is_passed_on(verb):
    verb("click.get_current_context().exit(3)")
    assert cli.main(["boom"]) == 3


@pytest.mark.parametrize("arguments", [["nonsense"], ["chips", "--nonsense"], ["chips", "a", "b"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    assert cli.main(arguments) == 2
    assert "Usage:" in capsys.readouterr().err


def test_ctrl_c_ends_with_one_line_and_exit_code_130(tmp_path):
    (tmp_path / "boom.py").write_text(
        "import click, time\n@click.command()\ndef command():\n    click.echo('started')\n    time.sleep(60)\n"
    )
    script = (
        f"import sys; from opentrn import cli; cli.__path__.append({str(tmp_path)!r}); cli._VERBS['boom'] = ''\n"
        "print('ready', flush=True); sys.exit(cli.main(['boom']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline() != "started\n":
        assert process.poll() is None, "ended before it was interrupted"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "trn: interrupted\n")


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m opentrn chips trn3 | head -1"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Trainium3")
