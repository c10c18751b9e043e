"""The NKI language as kernels import it: ``nki``, ``nki.language``, ``nki.isa`` and their companions.

Kernels reach these modules under their public names through ``trn run``, :func:`opentrn.install` or the pytest plugin.
"""

from __future__ import annotations

from opentrn.nki.kernel import Kernel, cpu_simulate, jit, simulate

__all__ = ["Kernel", "cpu_simulate", "jit", "simulate"]
