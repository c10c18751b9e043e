"""The NKI API before its second release: kernels that import ``neuronxcc.nki`` and whose functions return tiles.

One thin layer: tiles with block dimensions, symbolic indexing and masks on top of the instructions, memories and checks
of :mod:`opentrn.neuroncore`, which the current API uses too. Kernels get here through the public names in ``MODULES``.
"""

from __future__ import annotations

__all__ = ["MODULES"]

_HERE = "opentrn.nki.earlier"

MODULES: dict[str, str | None] = {
    "neuronxcc": f"{_HERE}.names.neuronxcc",
    "neuronxcc.nki": f"{_HERE}.names.nki",
    "neuronxcc.nki.language": f"{_HERE}.language",
    "neuronxcc.nki.language.constants": f"{_HERE}.names.language_constants",
    "neuronxcc.nki.language.iterators": f"{_HERE}.iteration",
    "neuronxcc.nki.isa": f"{_HERE}.isa",
    "neuronxcc.nki.isa.constants": f"{_HERE}.names.isa_constants",
    "neuronxcc.nki.isa.neuron_isa": f"{_HERE}.isa",
    "neuronxcc.nki.typing": f"{_HERE}.typing",
    "neuronxcc.nki.compiler": f"{_HERE}.compiler",
    "neuronxcc.nki.compiler.sbuf": f"{_HERE}.names.sbuf",
    "neuronxcc.nki.compiler.psum": f"{_HERE}.names.psum",
    "neuronxcc.starfish": None,
    "neuronxcc.starfish.support": None,
    "neuronxcc.starfish.support.dtype": f"{_HERE}.names.support_dtype",
    "neuronxcc.starfish.support.util": f"{_HERE}.names.support_util",
}
"""Public module name -> the module here that it stands for (None: a package that only holds others); parents first."""
