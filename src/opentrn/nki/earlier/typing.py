"""``nki.typing``: annotations of kernel parameters."""

from __future__ import annotations

from typing import Any

__all__ = ["mutable", "mutable_tensor", "scalar", "tensor"]


class _Annotation:
    """``tensor``, ``tensor[128, 512]`` and the like; written for the reader and not checked."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], (list, tuple)):
            # tensor[[128, 512], nl.bfloat16]: an argument without values, for nki.benchmark.
            from opentrn.nki.arrays import Spec

            return Spec(tuple(key[0]), key[1])
        return self

    def __call__(self, *_: Any, **__: Any) -> _Annotation:
        return self

    def __repr__(self) -> str:
        return f"nki.typing.{self._name}"


tensor = _Annotation("tensor")
mutable_tensor = _Annotation("mutable_tensor")
mutable = _Annotation("mutable")
scalar = _Annotation("scalar")
