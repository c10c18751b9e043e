"""``nki.typing``: annotations for kernel arguments. They are documentation; nothing is checked against them."""

from __future__ import annotations

from typing import Any

from opentrn.neuroncore.tensor import NkiTensor

__all__ = ["mutable_tensor", "scalar", "tensor"]


class _TensorAnnotation(type):
    """Lets annotations be subscripted with a shape and used in ``isinstance``."""

    def __getitem__(cls, shape: Any) -> _TensorAnnotation:
        return cls

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, NkiTensor)


class tensor(metaclass=_TensorAnnotation):
    """A tensor; ``tensor[128, 512]`` says its shape."""


class mutable_tensor(metaclass=_TensorAnnotation):
    """A tensor argument that the kernel writes to."""


scalar = float
"""A number known when the kernel is launched."""
