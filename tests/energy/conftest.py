"""The profile that the energy tests price is the profiler's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def matmul_profile():
    spec = importlib.util.spec_from_file_location(
        "profiling_kernels", Path(__file__).parents[1] / "profiling" / "conftest.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.trace(module.tiled_matmul, (1024, 512), (1024, 1024))
