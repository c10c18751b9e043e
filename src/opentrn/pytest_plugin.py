"""Pytest plugin: ``pytest -p opentrn.pytest_plugin`` runs somebody else's kernel tests on the simulated chip.

It makes ``nki``, ``neuronxcc.nki``, ``nki_cpu_simulator`` and ``neuron_dtypes`` importable before test modules are
collected, and
reports use of memory never written as a warning instead of an error: foreign kernels may rely on what happens to be
there.
"""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["pytest_addoption", "pytest_collection_finish", "pytest_configure", "pytest_load_initial_conftests"]


def pytest_addoption(parser: Any) -> None:
    """Add ``--opentrn-chip`` and ``--opentrn-uninitialized``."""
    group = parser.getgroup("opentrn", "OpenTrn, the simulated Trainium")
    group.addoption("--opentrn-chip", metavar="CHIP", help="chip that kernels run on (trn1, trn2, trn3, inf2)")
    group.addoption(
        "--opentrn-uninitialized", choices=("error", "warn", "ignore"), default="warn",
        help="what a use of memory never written does (default: warn)",
    )  # fmt: skip


def _install() -> None:
    from opentrn.public_names import install

    install()


def pytest_load_initial_conftests(early_config: Any) -> None:
    """Install before the conftest files of the suite are imported."""
    _install()


def pytest_configure(config: Any) -> None:
    """Apply the options."""
    _install()
    chip = config.getoption("--opentrn-chip", None)
    if chip:
        os.environ["NEURON_PLATFORM_TARGET_OVERRIDE"] = chip
    from opentrn.nki import launch

    launch.set_default(uninitialized=config.getoption("--opentrn-uninitialized", "warn"))


def pytest_collection_finish(session: Any) -> None:
    """Mend the runner of AWS's kernel library, whose simulation mode reads an attribute that only its compile mode
    sets."""
    runner = sys.modules.get("test.utils.test_orchestrator")
    orchestrator = getattr(runner, "Orchestrator", None)
    if orchestrator is not None and not hasattr(orchestrator, "_compiled_kernel"):
        orchestrator._compiled_kernel = None


_install()
