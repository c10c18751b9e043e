"""Public module names, `trn run`, and the pytest plugin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

TRN = [sys.executable, "-m", "opentrn"]

KERNEL = """
import sys
import numpy as np
import nki
import nki.isa as nisa
import nki.language as nl
from nki.isa.constants import oob_mode

@nki.jit
def double(a):
    out = nl.ndarray(a.shape, a.dtype, buffer=nl.shared_hbm)
    tile = nl.load(a)
    nl.store(out, nl.add(tile, tile))
    return out
"""


def run(tmp_path, body, *arguments, options=(), **environment):
    script = tmp_path / "script.py"
    script.write_text(KERNEL + textwrap.dedent(body))
    return subprocess.run(
        [*TRN, "run", *options, str(script), *arguments],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_script_sees_its_arguments_and_name(tmp_path):
    done = run(tmp_path, "print(__name__, sys.argv[1:], double(np.ones((2, 2), np.float32)).sum())", "--x", "1")
    assert done.stdout == "__main__ ['--x', '1'] 8.0\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    "options, environment",
    [
        (("--chip", "trn2"), {}),
        ((), {"NEURON_PLATFORM_TARGET_OVERRIDE": "gen3"}),
        ((), {"NKI_NC_VERSION": "gen3"}),
    ],
)
def test_the_chip_is_chosen(tmp_path, options, environment):
    done = run(tmp_path, "print(nisa.get_nc_version().name)", options=options, **environment)
    assert done.stdout == "gen3\n", done.stderr


@pytest.mark.parametrize("body, code", [("sys.exit(7)", 7), ("raise SystemExit", 0), ("sys.exit('no')", 1)])
def test_the_exit_code_is_passed_on(tmp_path, body, code):
    assert run(tmp_path, body).returncode == code


def test_our_errors_are_one_line_with_the_users_line(tmp_path):
    done = run(tmp_path, "@nki.jit\ndef bad(a):\n    t = nl.ndarray((129, 4), nl.float32)\n\nbad(np.ones((2, 2)))")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1
    assert len(lines) == 1 and f"{tmp_path}/script.py:17: " in lines[0] and "129 partitions" in lines[0]


def test_the_scripts_own_errors_keep_only_its_own_frames(tmp_path):
    done = run(tmp_path, "@nki.jit\ndef bad(a):\n    raise KeyError('mine')\n\nbad(np.ones((2, 2)))")
    assert done.returncode == 1
    assert "KeyError: 'mine'" in done.stderr and "script.py" in done.stderr
    assert "opentrn" not in done.stderr.replace(str(tmp_path), "")


def test_what_cannot_be_run_is_said(tmp_path):
    for target in (tmp_path / "missing.py", tmp_path):
        done = subprocess.run([*TRN, "run", str(target)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(target) in done.stderr
    done = run(tmp_path, "", options=("--chip", "trn9"))
    assert done.returncode == 1 and "trn9" in done.stderr


def test_ctrl_c_stops_a_kernel_that_never_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        KERNEL + "@nki.jit\ndef spin(a):\n    print('in', flush=True)\n    while True:\n        nl.load(a)\n"
        "spin(np.ones((2, 2), np.float32))\n"
    )
    process = subprocess.Popen([*TRN, "run", str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors


def test_uninitialized_memory_is_an_error_or_a_warning(tmp_path):
    body = """
    @nki.jit
    def unset(a):
        out = nl.ndarray(a.shape, a.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray(a.shape, a.dtype)
        nl.store(out, nl.add(tile, 1.0))
        return out
    print(np.isnan(unset(np.ones((2, 2), np.float32))).all())
    """
    assert run(tmp_path, body).returncode == 1
    warned = run(tmp_path, body, options=("--uninitialized", "warn"))
    assert warned.stdout == "True\n" and "RuntimeWarning" in warned.stderr
    quiet = run(tmp_path, body, options=("--uninitialized", "ignore"))
    assert quiet.stdout == "True\n" and "RuntimeWarning" not in quiet.stderr


def test_modules_are_the_same_under_every_name(tmp_path):
    done = run(
        tmp_path,
        """
        import nki_cpu_simulator.nki.language as sim_nl, nki.dtype, nki.tensor, nki.typing, nki.compiler.frontend
        import neuron_dtypes as dt
        assert sim_nl is nl and nki.dtype.bfloat16 is nl.bfloat16 and nki.tensor.NkiTensor is nl.NkiTensor
        words = dt.static_cast(np.arange(8, dtype=np.float32).reshape(1, 8), nl.float8_e4m3fn_x4)
        assert words.shape == (1, 2) and np.zeros(3, nl.float8_e4m3fn_x4).dtype == words.dtype
        assert (dt.static_cast(words, np.float32) == np.arange(8)).all()
        try:
            import nki.nonsense
        except ModuleNotFoundError as error:
            print(error.name)
        """,
    )
    assert done.stdout == "nki.nonsense\n", done.stderr


def test_an_installed_sdk_is_not_shadowed_unless_forced(tmp_path):
    (tmp_path / "nki").mkdir()
    (tmp_path / "nki" / "__init__.py").write_text("real = True\n")
    code = "import opentrn; print(opentrn.install(force={})); import nki; print(getattr(nki, 'real', False))"
    for force, real in ((False, True), (True, False)):
        done = subprocess.run(
            [sys.executable, "-c", code.format(force)],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert ("'nki'" in done.stdout) is not real, done.stderr
        assert done.stdout.endswith(f"{real}\n")


def test_the_plugin_runs_a_foreign_suite(tmp_path):
    (tmp_path / "conftest.py").write_text("import nki_cpu_simulator.nki.isa.constants\n")
    (tmp_path / "test_foreign.py").write_text(
        KERNEL
        + "def test_double():\n    a = np.ones((4, 4), np.float32)\n"
        + "    assert (nki.cpu_simulate(double)[2](a=a) == 2).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "opentrn.pytest_plugin", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr
