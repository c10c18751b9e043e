"""Tensors on the simulated device: a wrapper around the values, which live in host memory, and the bytes they take
in HBM.

Every ATen operation on such a tensor arrives in :func:`dispatch`, which computes it with PyTorch's own kernels (they
round each
result to its type as the engines do) and writes it down for the compiler. Views share their base's :class:`Buffer`.
"""

from __future__ import annotations

from typing import Any

import torch

from opentrn.errors import UnsupportedError
from opentrn.pytorch import memory, recording
from opentrn.pytorch.recording import Value

__all__ = ["DEVICE", "NeuronTensor", "dispatch", "to_device"]

DEVICE = "neuron"

aten = torch.ops.aten

# Types the engines have no representation for. 64-bit integers are kept: indices are computed as int32 on the chip.
_REFUSED = {
    torch.float64: "the chip has no 64-bit floats; convert with .float() before moving to the device",
    torch.complex32: "the chip has no complex numbers; use torch.view_as_real",
    torch.complex64: "the chip has no complex numbers; use torch.view_as_real",
    torch.complex128: "the chip has no complex numbers; use torch.view_as_real",
}

# Operations that may meet tensors of the host: copies, and indexing with an index on the host.
_MIXES_DEVICES = {
    aten.copy_.default,
    aten._to_copy.default,
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten.set_.source_Tensor,
    aten._has_compatible_shallow_copy_type.default,
}


class NeuronTensor(torch.Tensor):
    """A tensor whose device is ``neuron``.

    ``_data`` holds the values on the host, or only a shape (device ``meta``) while a model is estimated; ``_buffer``
    is the HBM it lies in.
    """

    _data: torch.Tensor
    _buffer: memory.Buffer
    _value: Value | None  # None while torch.compile traces

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, data: torch.Tensor, buffer: memory.Buffer) -> NeuronTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            data.shape,
            strides=data.stride(),
            storage_offset=data.storage_offset(),
            dtype=data.dtype,
            device=_devices[buffer.device],
        )  # type: ignore[attr-defined]
        made._data = data
        made._buffer = buffer
        made._value = (
            None
            if type(data) in _TRACED
            else Value(tuple(data.shape), data.stride(), data.storage_offset(), data.dtype, buffer.id)
        )
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return _DATA.__get__(self)

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        # PyTorch copies the metadata; the values are ours to move along.
        if type(value) is not NeuronTensor:
            raise RuntimeError(
                f"cannot set the data of a neuron tensor to a tensor on {value.device}; move it with "
                f".to('neuron') first"
            )
        _DATA.__set__(self, value)
        self._data, self._buffer, self._value = value._data, value._buffer, value._value

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        inner = repr(host(self, "print"))
        closing = inner.rstrip(")")
        grad = f", grad_fn=<{type(self.grad_fn).__name__}>" if self.grad_fn is not None else ""
        grad = ", requires_grad=True" if self.is_leaf and self.requires_grad else grad
        text = f"{closing}, device='{self.device}'{grad})"
        return f"Parameter containing:\n{text}" if getattr(self, "_is_param", False) else text

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) in memo:
            return memo[id(self)]
        if not self.is_leaf:
            raise RuntimeError(
                "only tensors that the user created (leaves of the graph) can be deep-copied; use .detach() first"
            )
        with torch.no_grad():
            copied = self.detach().clone(memory_format=torch.preserve_format)
        copied.requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True  # type: ignore[attr-defined]
        if self.grad is not None:
            copied.grad = self.grad.__deepcopy__(memo)
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The values, and where they go back to: loads anywhere, with map_location and weights_only.
        values = host(self, "save").clone()
        made = (
            torch._utils._rebuild_device_tensor_from_cpu_tensor,
            (values, self.dtype, str(self.device), self.requires_grad),
        )
        if getattr(self, "_is_param", False):
            from collections import OrderedDict

            tensor = self.detach()
            return torch._utils._rebuild_parameter, (tensor, self.requires_grad, OrderedDict())
        return made

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError("can't convert a neuron tensor to numpy; copy it to the host first with .cpu()")
        return host(self, "numpy").numpy(force=True)

    def new_tensor(
        self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
    ) -> torch.Tensor:  # type: ignore[override]
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def tolist(self) -> Any:
        return host(self, "tolist").tolist()

    def __array__(self, dtype: Any = None) -> Any:
        raise TypeError("can't convert a neuron tensor to numpy; copy it to the host first with .cpu()")

    def pin_memory(self, device: Any = None) -> torch.Tensor:
        raise RuntimeError("cannot pin a tensor that is on the device; only host tensors can be pinned")

    def untyped_storage(self) -> torch.UntypedStorage:
        return self._data.untyped_storage()  # sharded training frees and refills it

    def data_ptr(self) -> int:
        return self._data.data_ptr()


_TRACED = (torch._subclasses.FakeTensor, torch._subclasses.functional_tensor.FunctionalTensor)
_DATA = torch._C.TensorBase.data  # type: ignore[attr-defined]
_devices: list[torch.device] = []  # filled on registration: one a logical core


def device_objects(count: int) -> None:
    """Make the ``torch.device`` objects of ``count`` devices, once the backend has its name."""
    _devices[:] = [torch.device(DEVICE, k) for k in range(count)]


def host(tensor: NeuronTensor, why: str) -> torch.Tensor:
    """The values on the host: waits for the device. While a model is estimated there are none, and zeros stand for
    them."""
    recording.synchronize(why)
    if tensor._data.is_meta:
        return torch.zeros(tensor._data.shape, dtype=tensor._data.dtype)
    return tensor._data.detach()


def to_device(data: torch.Tensor, index: int | None = None) -> NeuronTensor:
    """Take host values (or a meta tensor's shape) as a new tensor of device ``index``, the current one by default;
    no copy is made."""
    refusal = _REFUSED.get(data.dtype)
    if refusal is not None:
        raise UnsupportedError(f"a {data.dtype} tensor on the neuron device: {refusal}")
    return NeuronTensor(
        data, memory.allocate(_allocated_bytes(data), memory.current_device() if index is None else index)
    )


def _allocated_bytes(data: torch.Tensor) -> int:
    if type(data) is not torch.Tensor and type(data) is not torch.nn.Parameter:
        return 0  # traced by torch.compile: nothing exists yet
    return data.untyped_storage().nbytes() if not data.is_meta else data.numel() * data.element_size()


class _Rule:
    """What dispatch needs to know about an operation, worked out once."""

    __slots__ = ("aliases", "in_place", "mixes", "name", "special")

    def __init__(self, func: Any) -> None:
        schema = func._schema
        self.name = func.name()
        self.mixes = func in _MIXES_DEVICES
        # For every result: the argument whose memory it is, and whether it is that argument itself.
        names = {a.name: k for k, a in enumerate(schema.arguments)}
        by_set = {}
        self.in_place = False
        for argument in schema.arguments:
            if argument.alias_info is not None:
                for label in argument.alias_info.before_set:
                    by_set[label] = (names[argument.name], argument.name, argument.alias_info.is_write)
                    self.in_place |= argument.alias_info.is_write
        self.aliases = []
        for result in schema.returns:
            found = None
            if result.alias_info is not None:
                for label in result.alias_info.before_set:
                    found = by_set.get(label)
            self.aliases.append(found)
        self.special = _SPECIAL.get(func) or (_collective if func.namespace in ("c10d", "_c10d_functional") else None)


_rules: dict[Any, _Rule] = {}


def dispatch(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one ATen operation that concerns the device: compute, wrap, write down."""
    rule = _rules.get(func)
    if rule is None:
        rule = _rules[func] = _Rule(func)
    if rule.special is not None:
        return rule.special(func, args, kwargs)
    target = kwargs.get("device")
    index = None
    plain_kwargs = kwargs
    if kwargs:
        plain_kwargs = {k: _unwrap(v, rule) for k, v in kwargs.items()}
        if target is not None:
            target = torch.device(target)
            index = target.index
    plain_args = [_unwrap(a, rule) for a in args]
    device = index if index is not None else _first_device(args)
    if recording.meta_mode and target is not None and target.type == DEVICE:
        plain_kwargs["device"] = "meta"
    out = func(*plain_args, **plain_kwargs)
    if target is not None and target.type != DEVICE:
        if target.type == "cpu":
            recording.synchronize("copy to the host")
            if isinstance(out, torch.Tensor) and out.is_meta:
                out = torch.zeros(out.shape, dtype=out.dtype)
        return out
    aliases = rule.aliases
    if isinstance(out, torch.Tensor):
        wrapped: Any = _wrap(out, aliases[0] if aliases else None, args, kwargs, device, rule)
        results = (wrapped,)
    elif isinstance(out, (tuple, list)):
        if len(aliases) == 1:  # a list of views: split, unbind, chunk
            wrapped = [_wrap(o, aliases[0], args, kwargs, device, rule) for o in out]
        else:
            wrapped = [
                _wrap(o, aliases[k], args, kwargs, device, rule) if isinstance(o, torch.Tensor) else o
                for k, o in enumerate(out)
            ]
        results = wrapped
        wrapped = type(out)(wrapped) if type(out) in (tuple, list) else tuple(wrapped)
    else:
        wrapped, results = out, ()
    if not results or results[0].__class__ is not NeuronTensor or results[0]._value is not None:
        recording.record(func, args, kwargs, results)
    return wrapped


def _unwrap(x: Any, rule: _Rule) -> Any:
    kind = type(x)
    if kind is NeuronTensor:
        return x._data
    if kind is list or kind is tuple:
        return kind(_unwrap(v, rule) for v in x) if x else x
    if kind is torch.device:
        return _HOST if x.type == DEVICE else x
    if isinstance(x, torch.Tensor) and x.dim() > 0 and not rule.mixes:
        if isinstance(x, NeuronTensor):
            return x._data
        raise RuntimeError(
            f"{rule.name} was given tensors on different devices, neuron and {x.device}; move the one of shape "
            f"{tuple(x.shape)} with .to('neuron')"
        )
    return x


_HOST = torch.device("cpu")


def _first_device(args: Any) -> int:
    for a in args:
        if type(a) is NeuronTensor:
            return a._buffer.device
        if type(a) in (list, tuple):
            for b in a:
                if type(b) is NeuronTensor:
                    return b._buffer.device
    return memory.current_device()


def _wrap(out: torch.Tensor, alias: Any, args: tuple, kwargs: dict[str, Any], device: int, rule: _Rule) -> torch.Tensor:
    if alias is not None:
        position, name, write = alias
        base = args[position] if position < len(args) else kwargs.get(name)
        if write and isinstance(base, torch.Tensor):
            if type(base) is NeuronTensor and base.shape != out.shape:
                base.data = NeuronTensor(
                    out, memory.allocate(_allocated_bytes(out), device)
                )  # resized, as ``out=`` does
            return base
        if type(base) is NeuronTensor:
            return NeuronTensor(out, base._buffer)
    refusal = _REFUSED.get(out.dtype)
    if refusal is not None:
        raise UnsupportedError(f"{rule.name} makes a {out.dtype} tensor on the neuron device: {refusal}")
    return NeuronTensor(out, memory.allocate(_allocated_bytes(out), device))


def _item(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """``.item()``: waits for the device. While a model is estimated the answer is NaN, 0 or False."""
    tensor = args[0]
    recording.synchronize("item")
    if tensor._data.is_meta:
        return float("nan") if tensor.dtype.is_floating_point else (False if tensor.dtype is torch.bool else 0)
    return func(tensor._data)


def _copy(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """``copy_`` within the device, and in both directions across the host link."""
    target, source = args[0], args[1]
    if type(target) is NeuronTensor:
        if target._data.is_meta:
            pass
        elif type(source) is NeuronTensor:
            target._data.copy_(source._data)
        else:
            target._data.copy_(source)
        if type(source) is NeuronTensor:
            recording.record(func, args, kwargs, (target,))
        else:
            recording.transfer(target._value, to_device=True)
    else:
        recording.transfer(source._value, to_device=False)
        target.copy_(host(source, "copy to the host"))
    return target


def _attention(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    from opentrn.pytorch import attention

    return attention.forward(func, args, kwargs)


def _attention_backward(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    from opentrn.pytorch import attention

    return attention.backward(func, args, kwargs)


def _record_stream(func: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    return None


def _collective(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    from opentrn.pytorch import distributed

    return distributed.collective(func, args, kwargs)


_SPECIAL = {
    aten._local_scalar_dense.default: _item,
    aten.copy_.default: _copy,
    aten._scaled_dot_product_fused_attention_overrideable.default: _attention,
    aten._scaled_dot_product_fused_attention_overrideable_backward.default: _attention_backward,
    aten.record_stream.default: _record_stream,
}
