"""Arrays of the caller (NumPy, torch, JAX) as HBM tensors, and back.

Contiguous NumPy and torch memory is used in place, so that a kernel that writes to an input changes the caller's
array, as it does on the device. JAX arrays are immutable and are copied.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import undefined
from opentrn.neuroncore.dtypes import DType, as_dtype, numpy_dtype, precise_fp
from opentrn.neuroncore.layout import contiguous_strides, intern_layout
from opentrn.neuroncore.machine import Core
from opentrn.neuroncore.memory import FULL, Allocation, MemoryRegion, Storage
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor
from opentrn.nki.host_types import host_dtype, packed_dtype_of

__all__ = ["Converter"]


def _module(name: str) -> Any:
    return sys.modules.get(name)


class Converter:
    """Converts the arguments of one launch and its results."""

    def __init__(self, core: Any, *, execute: bool = True, shared: bool = False) -> None:
        self.core = core
        self.execute = execute
        self.region = MemoryRegion.shared_hbm if shared else MemoryRegion.private_hbm
        self.kind = "numpy"
        self.allocations: list[Allocation] = []
        self.inputs: list[tuple[NkiTensor, Any, np.ndarray | None]] = []
        self._seen: dict[int, NkiTensor] = {}

    def arguments(self, bound: inspect.BoundArguments) -> inspect.BoundArguments:
        """The call's arguments with every array (also inside lists, tuples and dicts) made a tensor."""
        converted = inspect.BoundArguments(bound.signature, type(bound.arguments)(bound.arguments))
        for name, value in bound.arguments.items():
            parameter = bound.signature.parameters[name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                converted.arguments[name] = {k: self._convert(v, k) for k, v in value.items()}
            else:
                converted.arguments[name] = self._convert(value, name)
        return converted

    def _convert(self, value: Any, name: str) -> Any:
        if isinstance(value, NkiTensor):
            return value
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self._convert(v, f"{name}[{k}]") for k, v in enumerate(value))
        if isinstance(value, dict):
            return {k: self._convert(v, f"{name}[{k!r}]") for k, v in value.items()}
        array, kind, dtype = self._host_array(value)
        if kind is None:
            return value
        self.kind = kind if self.kind == "numpy" else self.kind
        known = self._seen.get(id(value))
        if known is None:
            known = self._seen[id(value)] = self._tensor(array, dtype, name, value, kind)
        return known

    def _host_array(self, value: Any) -> tuple[Any, str | None, Any]:
        """(NumPy view of the caller's memory or shape holder, kind, NeuronCore dtype)."""
        if isinstance(value, np.ndarray):
            return value, "numpy", self._dtype(value.dtype)
        torch = _module("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return _torch_array(value) if self.execute else value, "torch", self._dtype(value.dtype)
        jax = _module("jax")
        if jax is not None and isinstance(value, jax.Array):
            return np.array(value), "jax", self._dtype(value.dtype)
        if hasattr(value, "__neuron_spec__"):
            return value, "numpy", self._dtype(value.dtype)
        return None, None, None

    def _dtype(self, dtype: Any) -> DType:
        try:
            return as_dtype(dtype)
        except TypeError:
            pass
        packed = packed_dtype_of(dtype)
        if packed is not None:
            return packed
        try:
            return as_dtype(getattr(dtype, "name", str(dtype)))
        except TypeError:
            raise ValidationError(
                f"an argument has type {dtype}, which a NeuronCore does not hold; convert it first", caller()
            ) from None

    def _tensor(self, array: Any, dtype: DType, name: str, value: Any, kind: str) -> NkiTensor:
        shape = tuple(int(n) for n in array.shape) or (1,)
        if min(shape) < 1:
            raise ValidationError(
                f"argument {name} has shape {shape}, without elements; every size must be 1 or more", caller()
            )
        host = numpy_dtype(dtype, precise_fp())
        size = int(np.prod(shape))
        data, external = None, None
        if self.execute:
            source = np.asarray(array)
            in_place = source.flags.c_contiguous and source.dtype.itemsize == host.itemsize and (
                source.dtype == host or source.dtype.kind == "V" or dtype.kind == "packed" or kind == "torch"
            )  # fmt: skip
            if in_place:
                flat = source.reshape(-1)
            else:
                flat = np.ascontiguousarray(source).reshape(-1).astype(host)
                external = source
            data = flat.view(np.uint8)
            if not data.flags.writeable:
                data = data.copy()
        allocation = Allocation(
            -1 - len(self.allocations), self.region, 1, size * dtype.itemsize, name, None, None, dtype, shape
        )
        self.allocations.append(allocation)
        storage = Storage(self.region, dtype, host, 1, size * host.itemsize, data, allocation, FULL)
        tensor = object.__new__(NkiTensor)
        tensor.storage = storage
        tensor.layout = intern_layout(shape, contiguous_strides(shape), dtype, host, self.region, size)
        tensor.offset = 0
        tensor.indirection = None
        tensor._array = None
        self.inputs.append((tensor, value, external))
        return tensor

    def results(self, value: Any, core: Core) -> Any:
        """What the kernel returned, as the caller's kind of array; in-place writes reach arrays that had to be
        copied."""
        if not self.execute:
            return _placeholders(value)
        torch = _module("torch")
        for tensor, value_in, external in self.inputs:
            if torch is not None and isinstance(value_in, torch.Tensor) and not value_in.is_contiguous():
                value_in.detach().copy_(_to_torch(tensor.array(), tensor.layout.dtype))
            if external is not None and external.flags.writeable:
                external[...] = tensor.array().reshape(external.shape).astype(external.dtype)
        return self._result(value, core)

    def _result(self, value: Any, core: Core) -> Any:
        if isinstance(value, NkiTensor):
            return self._array(value, core)
        if isinstance(value, (list, tuple)):
            return type(value)(self._result(v, core) for v in value)
        if isinstance(value, dict):
            return {k: self._result(v, core) for k, v in value.items()}
        return value

    def _array(self, tensor: NkiTensor, core: Core) -> Any:
        if tensor.layout.on_chip:
            raise ValidationError(
                f"the kernel returns a {tensor.layout.region.value} tensor; copy it to an nl.shared_hbm tensor and "
                f"return that",
                tensor.storage.allocation.source,
            )
        for known, value, _ in self.inputs if self.kind != "jax" else ():
            if known.storage is tensor.storage and known.layout is tensor.layout and known.offset == tensor.offset:
                return value  # an input updated in place
        _require_result(core, tensor)
        array = tensor.array()
        if tensor.storage.host is not tensor.storage.dtype.numpy:
            array = array.astype(tensor.layout.dtype.numpy)
        if self.kind == "torch":
            return _to_torch(array, tensor.layout.dtype)
        if self.kind == "jax":
            return _module("jax").numpy.asarray(array)
        return (
            np.array(array).view(host_dtype(tensor.layout.dtype))
            if tensor.layout.dtype.kind == "packed"
            else np.array(array)
        )


def _require_result(core: Core, tensor: NkiTensor) -> None:
    """Report a result that was computed from memory never written, or never written itself."""
    mask = undefined.defined(tensor)
    if mask is None:
        return
    origin = tensor.storage.undefined_by
    missing = int(mask.size - np.count_nonzero(mask))
    label = f" {tensor.name!r}" if tensor.name else ""
    if origin is not None:
        core.report_undefined(
            f"{missing} of {mask.size} elements of the result{label} {list(tensor.shape)} come from memory that was "
            "never written and is read here; write it first, for example with nisa.memset",
            origin,
        )
    else:
        import warnings

        warnings.warn(
            f"{missing} of {mask.size} elements of the result{label} {list(tensor.shape)} were never written by the "
            "kernel",
            RuntimeWarning,
            stacklevel=2,
        )


def _torch_array(tensor: Any) -> np.ndarray:
    """NumPy view of a CPU tensor's memory; narrow floats as integers of their width."""
    torch = _module("torch")
    tensor = tensor.detach()
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    narrow = {torch.bfloat16: torch.int16}
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"):
        if hasattr(torch, name):
            narrow[getattr(torch, name)] = torch.uint8
    if tensor.dtype in narrow:
        return tensor.view(narrow[tensor.dtype]).numpy().view(as_dtype(tensor.dtype).numpy)
    return tensor.numpy()


def _to_torch(array: np.ndarray, dtype: DType) -> Any:
    torch = _module("torch")
    array = np.ascontiguousarray(array)
    target = getattr(torch, str(dtype), None)
    if dtype == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    if dtype.kind in ("float", "scale") and dtype.itemsize == 1 and target is not None:
        return torch.from_numpy(array.view(np.uint8).copy()).view(target)
    return torch.from_numpy(np.array(array))


def _placeholders(value: Any) -> Any:
    """Results of a launch without values: zeros would be a lie, so shapes only."""
    if isinstance(value, NkiTensor):
        return Spec(value.shape, value.dtype)
    if isinstance(value, (list, tuple)):
        return type(value)(_placeholders(v) for v in value)
    return value


class Spec:
    """Shape and type of an array without its values, for tracing kernels at any size."""

    __neuron_spec__ = True

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape = tuple(shape)
        self.dtype = as_dtype(dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return f"Spec({self.dtype}{list(self.shape)})"
