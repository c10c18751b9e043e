"""``nki.language``."""

from __future__ import annotations

from opentrn.neuroncore.dtypes import *  # noqa: F403
from opentrn.neuroncore import dtypes as _dtypes, machine as _machine
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.tensor import NKIObject, NkiTensor, ds
for _d in _dtypes.all_dtypes():
    globals()[str(_d)] = _d
bool_ = _dtypes.bool_
sbuf, psum, private_hbm, shared_hbm = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.private_hbm, MemoryRegion.shared_hbm
hbm = private_hbm
affine_range = sequential_range = static_range = range

def ndarray(shape, dtype, buffer=sbuf, name="", address=None):
    return _machine.current().allocate(shape, dtype, buffer, name, address)
def add(x, y): ...
def multiply(x, y): ...
def exp(x): ...
def copy(x): ...
def maximum(x): ...
