"""Kernels with a known bottleneck, traced without values."""

from __future__ import annotations

import pytest

from opentrn.neuroncore import isa as nisa
from opentrn.neuroncore import machine
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.nki import launch
from opentrn.nki.arrays import Spec
from opentrn.nki.kernel import jit
from opentrn.profiling import Profile, profile


def _tile(shape, dtype, region=MemoryRegion.sbuf):
    return machine.current().allocate(shape, dtype, region)


@jit
def tiled_matmul(lhs_t, rhs):
    """Loads both tiles for every matmul, as a first version of a kernel does."""
    k_size, m_size = lhs_t.shape
    n_size = rhs.shape[1]
    result = _tile((m_size, n_size), lhs_t.dtype, MemoryRegion.shared_hbm)
    for m in range(m_size // 128):
        for n in range(n_size // 512):
            acc = _tile((128, 512), "float32", MemoryRegion.psum)
            for k in range(k_size // 128):
                a, b = _tile((128, 128), lhs_t.dtype), _tile((128, 512), rhs.dtype)
                nisa.dma_copy(a, lhs_t[k * 128 : (k + 1) * 128, m * 128 : (m + 1) * 128])
                nisa.dma_copy(b, rhs[k * 128 : (k + 1) * 128, n * 512 : (n + 1) * 512])
                nisa.nc_matmul(acc, a, b)
            out = _tile((128, 512), lhs_t.dtype)
            nisa.tensor_copy(out, acc)
            nisa.dma_copy(result[m * 128 : (m + 1) * 128, n * 512 : (n + 1) * 512], out)
    return result


def trace(kernel, *shapes, chip: str = "trn2", dtype: str = "bfloat16") -> Profile:
    """Profile ``kernel`` on arrays of ``shapes`` without values."""
    with launch.session(chip=chip, execute=False, record=True) as session:
        kernel(*(Spec(shape, dtype) for shape in shapes))
    return profile(session.launches[0])


@pytest.fixture(scope="session")
def matmul_profile() -> Profile:
    return trace(tiled_matmul, (1024, 512), (1024, 1024))
