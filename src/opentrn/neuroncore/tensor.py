"""NkiTensor: a view of memory. Every view operation is arithmetic on shape, strides and offset; none copies.

The rules (which dimension may move, what a slice may reach) are those of the NKI language guide; a
view the hardware could not address is refused here, with the line of the kernel that asked for it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore.dtypes import DType, as_dtype, is_integer, is_packed, numpy_dtype
from opentrn.neuroncore.layout import Layout, contiguous_strides, intern_layout, start_class
from opentrn.neuroncore.memory import MemoryRegion, Storage
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller

__all__ = ["DynamicSlice", "Indirection", "NKIObject", "NkiTensor", "ds"]


class NKIObject:
    """Base class for the configuration objects that kernels define; keyword arguments become attributes.

    In a dataclass, attributes count as fields whether they are annotated or not, as in AWS's library.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        fields = dict(cls.__dict__.get("__annotations__", {}))
        for name, value in vars(cls).items():
            plain = not name.startswith("_") and not hasattr(value, "__get__") and getattr(value, "__hash__", None)
            if plain and name not in fields and not isinstance(cls, enum.EnumMeta):
                fields[name] = Any
        cls.__annotations__ = fields

    def __init__(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            setattr(self, name, value)


class DynamicSlice:
    """``size`` elements from ``start``; the start may be a register."""

    __slots__ = ("start", "size")

    def __init__(self, start: Any, size: int) -> None:
        self.start = start
        self.size = size


def ds(start: Any, size: int) -> DynamicSlice:
    """A slice of ``size`` elements that begins at ``start`` (an int or a register), for indexing tensors."""
    return DynamicSlice(start, size)


class Indirection:
    """Runtime addressing of one dimension of a view.

    Attributes:
        kind: ``"scalar"`` (one offset for the whole view), ``"vector"`` (one a partition), ``"tensor"`` (free-dimension
            offsets in snake order, NeuronCore-v4).
        index: register or tensor that holds the offset(s), in units of ``stride`` elements.
        stride: elements of storage that one step of the index moves.
        limit: number of legal index values, for the bounds check.
        dim: dimension of the view that the index replaces; None where it only shifts the start.
        strict: whether an index of ``limit`` or more is out of bounds even where it stays inside the storage: so for a
            selected dimension, not for an access pattern, which addresses the storage.
    """

    __slots__ = ("kind", "index", "stride", "limit", "dim", "strict")

    def __init__(self, kind: str, index: Any, stride: int, limit: int, dim: int | None, strict: bool = False) -> None:
        self.kind = kind
        self.index = index
        self.stride = stride
        self.limit = limit
        self.dim = dim
        self.strict = strict


def _fail(message: str) -> ValidationError:
    return ValidationError(message, caller())


def _as_index(value: Any, what: str) -> int:
    if type(value) is int:
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, VirtualRegister):
        return value.read()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _fail(f"{what} is {value!r}, not an integer; index with integers, slices or nl.ds(start, size)")


class NkiTensor(NKIObject):
    """A multi-dimensional view of SBUF, PSUM or HBM.

    Dimension 0 of an on-chip tensor is the partition dimension. ``strides`` and ``offset`` count elements of
    ``dtype``; the partition stride equals the free elements of the storage. Views share storage.
    """

    __slots__ = ("storage", "layout", "offset", "indirection", "_array")

    storage: Storage
    layout: Layout
    offset: int
    indirection: Indirection | None

    def __init__(
        self, shape: Sequence[int], dtype: Any, storage: Any, buffer: MemoryRegion | str = MemoryRegion.sbuf,
        name: str = "",
    ) -> None:  # fmt: skip
        """Bind a tensor to storage that exists already; kernels use ``nl.ndarray``.

        Raises:
            ValidationError: ``storage`` is smaller than ``shape`` of ``dtype`` needs.
        """
        region = buffer if isinstance(buffer, MemoryRegion) else MemoryRegion(buffer)
        kind = as_dtype(dtype)
        dims = tuple(int(n) for n in shape)
        strides = contiguous_strides(dims)
        host = numpy_dtype(kind)
        if storage is not None:
            host = storage.host if storage.dtype is kind else host
            free = storage.free_bytes // host.itemsize
        else:
            free = strides[0] if region.on_chip and dims else int(np.prod(dims))
        self.storage = cast(Storage, storage)
        self.layout = intern_layout(dims, strides, kind, host, region, free)
        self.offset = 0
        self.indirection = None
        self._array = None
        if storage is not None and self.layout.size * host.itemsize > storage.size_bytes:
            raise _fail(f"a storage of {storage.size_bytes} bytes cannot hold {kind}{list(dims)}")
        if storage is not None and name:
            storage.allocation.name = name

    # Properties of the view

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    @property
    def strides(self) -> tuple[int, ...]:
        return self.layout.strides

    @property
    def dtype(self) -> DType:
        return self.layout.dtype

    @property
    def buffer(self) -> MemoryRegion:
        return self.layout.region

    @property
    def ndim(self) -> int:
        return self.layout.ndim

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def name(self) -> str:
        return self.storage.allocation.name if self.storage is not None else ""

    @property
    def itemsize(self) -> int:
        return self.layout.dtype.itemsize

    def __len__(self) -> int:
        return self.layout.shape[0]

    def __repr__(self) -> str:
        layout = self.layout
        label = f" {self.name!r}" if self.name else ""
        return f"<NkiTensor{label} {layout.dtype}{list(layout.shape)} in {layout.region.value}>"

    def is_contiguous(self) -> bool:
        """Whether the view is dense and row-major; on chip, over the free dimensions."""
        return self.layout.is_contiguous()

    def get_pattern(self) -> list[list[int]]:
        """The access pattern as ``[[stride, count], ...]``, as :meth:`ap` takes it."""
        return [[stride, size] for stride, size in zip(self.layout.strides, self.layout.shape, strict=True)]

    def is_indirect(self) -> bool:
        """Whether the view's address is known only at run time."""
        return self.indirection is not None

    # Making views

    def _view(self, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> NkiTensor:
        """A view of the same storage, type and indirection."""
        old = self.layout
        view = _new(type(self))
        view.storage = self.storage
        start = old.start
        if old.on_chip and (start or offset >= old.storage_free):
            start = _start(self.storage, offset, old.storage_free)
        view.layout = intern_layout(
            shape, strides, old.dtype, old.host, old.region, old.storage_free, old.indirect, start
        )
        view.offset = offset
        view.indirection = self.indirection
        view._array = None
        return view

    def __getitem__(self, key: Any) -> NkiTensor:
        """NumPy-style basic indexing: integers, slices, ``...`` and ``nl.ds``.

        An integer on the partition dimension keeps it at size 1; on-chip views stay at least 2-D and HBM views 1-D.

        Raises:
            ValidationError: an index or slice reaches outside the tensor.
        """
        layout = self.layout
        shape, strides = layout.shape, layout.strides
        if type(key) is not tuple:
            key = (key,)
        num_dims = layout.ndim
        if len(key) == num_dims and self.indirection is None:
            # Slices start:stop and : only, the commonest by far: the resulting layout is remembered by its counts.
            offset = self.offset
            counts = []
            for k, size, stride in zip(key, shape, strides):  # noqa: B905  (equally long)
                if type(k) is not slice or k.step is not None:
                    break
                start, stop = k.start, k.stop
                if type(start) is int and type(stop) is int and 0 <= start < stop <= size:
                    counts.append(stop - start)
                    offset += start * stride
                elif start is None and stop is None:
                    counts.append(size)
                else:
                    break
            else:
                start = layout.start
                if (start or offset >= layout.storage_free) and layout.on_chip:
                    start = _start(self.storage, offset, layout.storage_free)
                counts = tuple(counts)
                view = _new(NkiTensor)
                view.storage = self.storage
                view.offset = offset
                view.indirection = None
                view._array = None
                child = layout.slices.get((counts, start))
                if child is None:
                    child = layout.slices[counts, start] = intern_layout(
                        counts, strides, layout.dtype, layout.host, layout.region, layout.storage_free, None, start
                    )
                view.layout = child
                return view
        if len(key) != num_dims or Ellipsis in key:
            key = self._expand_key(key)
        offset = self.offset
        new_shape: list[int] = []
        new_strides: list[int] = []
        dim = 0
        on_chip = layout.on_chip
        last_dropped = -1
        for k in key:
            size = shape[dim]
            stride = strides[dim]
            if type(k) is slice:
                start, stop, step = k.start, k.stop, k.step
                if start is None and stop is None and step is None:
                    new_shape.append(size)
                    new_strides.append(stride)
                    dim += 1
                    continue
                if type(start) is not int or type(stop) is not int or start < 0 or stop < 0 or step is not None:
                    start, stop, step = self._resolve_slice(dim, k)
                    count = (stop - start + step - 1) // step
                    if step > 1 and dim == 0 and on_chip and count > 1:
                        raise _fail(
                            f"step {step} on the partition dimension; instructions reach neighbouring partitions only, "
                            "pick partitions with nisa.dma_copy from HBM"
                        )
                    new_strides.append(stride * step)
                else:
                    count = stop - start
                    new_strides.append(stride)
                if stop > size or count <= 0:
                    raise self._outside(dim, start, stop)
                new_shape.append(count)
                offset += start * stride
            elif type(k) is DynamicSlice:
                start = k.start if type(k.start) is int else _as_index(k.start, f"start of dimension {dim}")
                count = k.size if type(k.size) is int else _as_index(k.size, f"size of dimension {dim}")
                if start < 0 or start + count > size or count <= 0:
                    raise self._outside(dim, start, start + count)
                new_shape.append(count)
                new_strides.append(stride)
                offset += start * stride
            elif isinstance(k, NkiTensor):
                return self._select_by_tensor(key, dim)
            else:
                index = k if type(k) is int else _as_index(k, f"index of dimension {dim}")
                if index < 0:
                    index += size
                if not 0 <= index < size:
                    raise self._outside(dim, index, index + 1)
                offset += index * stride
                if dim == 0 and on_chip:
                    new_shape.append(1)
                    new_strides.append(stride)
                else:
                    last_dropped = dim
            dim += 1
        if last_dropped >= 0 and len(new_shape) < (2 if on_chip else 1):
            new_shape.append(1)
            new_strides.append(strides[last_dropped])
        if self.indirection is not None:
            self._keep_indirect(key)
        return self._view(tuple(new_shape), tuple(new_strides), offset)

    def _expand_key(self, key: tuple) -> tuple:
        """The key with ``...`` and missing dimensions filled in."""
        num_dims = self.layout.ndim
        given = sum(1 for k in key if k is not Ellipsis)
        if None in [k for k in key if k is None or k is Ellipsis]:
            raise _fail("None cannot index a tensor; use expand_dim(dim) for a new dimension")
        if given > num_dims:
            raise _fail(f"{given} indices on a tensor of {num_dims} dimensions, shape {list(self.layout.shape)}")
        where = next((i for i, k in enumerate(key) if k is Ellipsis), len(key))
        rest = [k for k in key[where + 1 :] if k is not Ellipsis]
        fill = (slice(None),) * (num_dims - given)
        return (*key[:where], *fill, *rest)

    def _resolve_slice(self, dim: int, k: slice) -> tuple[int, int, int]:
        size = self.layout.shape[dim]
        step = 1 if k.step is None else _as_index(k.step, f"step of dimension {dim}")
        if step < 1:
            raise _fail(f"step {step} on dimension {dim}; access patterns only step forwards, use a step of 1 or more")
        start = 0 if k.start is None else _as_index(k.start, f"start of dimension {dim}")
        stop = size if k.stop is None else _as_index(k.stop, f"end of dimension {dim}")
        if start < 0:
            start += size
        if stop < 0:
            stop += size
        return start, stop, step

    def _outside(self, dim: int, start: int, stop: int) -> ValidationError:
        shape = list(self.layout.shape)
        label = f"tensor {self.name!r}" if self.name else "tensor"
        size = shape[dim]
        if stop <= start:
            return ValidationError(
                f"empty slice {start}:{stop} on dimension {dim} of {label} {shape}; a view needs at least one element",
                caller(),
            )
        return ValidationError(
            f"{start}:{stop} reaches outside dimension {dim} of {label} {shape}, which holds 0:{size}; "
            f"clamp the last tile, for example with min({size}, stop)",
            caller(),
        )

    def _keep_indirect(self, key: tuple) -> None:
        indirection = self.indirection
        assert indirection is not None
        dim = indirection.dim
        if dim is not None and dim < len(key) and key[dim] != slice(None):
            raise _fail(f"dimension {dim} is addressed at run time and cannot be sliced again; slice before the select")

    def _select_by_tensor(self, key: tuple, dim: int) -> NkiTensor:
        view = self[(*key[:dim], *(slice(None),) * (self.layout.ndim - dim))] if dim else self
        kept = dim - sum(1 for d, k in enumerate(key[:dim]) if not isinstance(k, (slice, DynamicSlice)) and d > 0)
        view = view.select(kept, key[dim])
        rest = (slice(None),) * kept + tuple(key[dim + 1 :])
        return view[rest] if len(key) > dim + 1 else view

    def __setitem__(self, key: Any, value: Any) -> None:
        """Copy ``value`` (a tensor or a number) into the view ``self[key]``."""
        from opentrn.neuroncore.assign import assign

        target = self[key]
        if isinstance(value, NkiTensor) and value.storage is target.storage and value.offset == target.offset:
            return  # `a[k] += b` computed in place already
        assign(target, value)

    def _check_dim(self, dim: int, what: str, partition_ok: bool = False) -> int:
        if dim < 0:
            dim += self.layout.ndim
        if not 0 <= dim < self.layout.ndim:
            raise _fail(f"{what}: dimension {dim} of a tensor with {self.layout.ndim} dimensions")
        if dim == 0 and not partition_ok:
            if self.layout.on_chip:
                raise _fail(
                    f"{what}: dimension 0 is the partition dimension of an on-chip tensor and cannot be changed"
                )
            if self._vector():
                raise _fail(f"{what}: dimension 0 is addressed at run time, row by row, and cannot be changed")
        return dim

    def permute(self, dims: Sequence[int]) -> NkiTensor:
        """Reorder dimensions; the partition dimension stays first on chip."""
        order = tuple(dims)
        if sorted(order) != list(range(self.layout.ndim)):
            raise _fail(f"permute{order} is not a permutation of the {self.layout.ndim} dimensions")
        if order and order[0] != 0 and (self.layout.on_chip or self._vector()):
            raise _fail(f"permute{order} moves the partition dimension; keep 0 first and transpose with an instruction")
        shape, strides = self.layout.shape, self.layout.strides
        return self._view(tuple(shape[d] for d in order), tuple(strides[d] for d in order), self.offset)

    def _vector(self) -> bool:
        return self.indirection is not None and self.indirection.kind == "vector"

    def broadcast(self, dim: int, size: int) -> NkiTensor:
        """Repeat a dimension of size 1 ``size`` times, by a stride of zero."""
        dim = self._check_dim(dim, "broadcast")
        if self.layout.shape[dim] != 1:
            raise _fail(f"broadcast: dimension {dim} has size {self.layout.shape[dim]}, only size 1 can be repeated")
        shape, strides = list(self.layout.shape), list(self.layout.strides)
        shape[dim], strides[dim] = int(size), 0
        return self._view(tuple(shape), tuple(strides), self.offset)

    def expand_dim(self, dim: int) -> NkiTensor:
        """Insert a dimension of size 1 at ``dim``."""
        if dim < 0:
            dim += self.layout.ndim + 1
        if not 0 <= dim <= self.layout.ndim:
            raise _fail(f"expand_dim: position {dim} in a tensor with {self.layout.ndim} dimensions")
        if dim == 0 and (self.layout.on_chip or self._vector()):
            raise _fail("expand_dim: nothing can stand before the partition dimension; use dim 1 or more")
        shape, strides = list(self.layout.shape), list(self.layout.strides)
        step = strides[dim] * shape[dim] if dim < len(shape) else 1
        shape.insert(dim, 1)
        strides.insert(dim, step)
        return self._view(tuple(shape), tuple(strides), self.offset)

    def squeeze_dim(self, dim: int) -> NkiTensor:
        """Remove a dimension of size 1."""
        dim = self._check_dim(dim, "squeeze_dim", partition_ok=not self._vector())
        if dim == 0 and self.layout.on_chip:
            raise _fail("squeeze_dim: the partition dimension of an on-chip tensor cannot be removed")
        if self.layout.shape[dim] != 1:
            raise _fail(f"squeeze_dim: dimension {dim} has size {self.layout.shape[dim]}, not 1")
        shape, strides = list(self.layout.shape), list(self.layout.strides)
        del shape[dim], strides[dim]
        return self._view(tuple(shape), tuple(strides), self.offset)

    def reshape_dim(self, dim: int, shape: Sequence[int]) -> NkiTensor:
        """Split one dimension into several; one size may be -1."""
        sizes = [int(n) for n in shape]
        dim = self._check_dim(dim, "reshape_dim", partition_ok=len(sizes) == 1)
        total = self.layout.shape[dim]
        sizes = _infer(sizes, total, f"reshape_dim of dimension {dim} (size {total}) to {tuple(shape)}")
        step = self.layout.strides[dim]
        strides = [step * s for s in contiguous_strides(tuple(sizes))]
        new_shape = (*self.layout.shape[:dim], *sizes, *self.layout.shape[dim + 1 :])
        new_strides = (*self.layout.strides[:dim], *strides, *self.layout.strides[dim + 1 :])
        return self._view(new_shape, new_strides, self.offset)

    def flatten_dims(self, start_dim: int, end_dim: int) -> NkiTensor:
        """Merge dimensions ``start_dim`` to ``end_dim`` (inclusive), which must be contiguous in memory."""
        start = self._check_dim(start_dim, "flatten_dims", partition_ok=start_dim == end_dim)
        end = self._check_dim(end_dim, "flatten_dims", partition_ok=start_dim == end_dim)
        if end < start:
            raise _fail(f"flatten_dims({start_dim}, {end_dim}): the end comes before the start")
        shape, strides = self.layout.shape, self.layout.strides
        size, step = shape[end], strides[end]
        for d in range(end - 1, start - 1, -1):
            if shape[d] != 1 and size != 1 and strides[d] != step * size:
                raise _fail(
                    f"flatten_dims({start_dim}, {end_dim}): dimensions {d} and {d + 1} are not contiguous in memory "
                    f"(strides {list(strides)}, shape {list(shape)}); copy the tensor first"
                )
            if size == 1:
                step = strides[d]
            size *= shape[d]
        return self._view((*shape[:start], size, *shape[end + 1 :]), (*strides[:start], step, *strides[end + 1 :]),
                          self.offset)  # fmt: skip

    def reshape(self, *shape: Any) -> NkiTensor:
        """The same elements in another shape, without a copy; the partition dimension is preserved on chip."""
        sizes = [int(n) for n in (shape[0] if len(shape) == 1 and isinstance(shape[0], Iterable) else shape)]
        old = self.layout
        sizes = _infer(sizes, old.size, f"reshape of {list(old.shape)} to {sizes}")
        if tuple(sizes) == old.shape:
            return self
        pinned = 1 if old.on_chip or self._vector() else 0
        if pinned and (not sizes or sizes[0] != old.shape[0]):
            raise _fail(
                f"reshape of {list(old.shape)} to {sizes} changes the partition dimension of an on-chip tensor; "
                f"keep {old.shape[0]} first"
            )
        strides = _reshaped_strides(old.shape[pinned:], old.strides[pinned:], tuple(sizes[pinned:]))
        if strides is None:
            raise _fail(
                f"reshape of {list(old.shape)} (strides {list(old.strides)}) to {sizes} would need a copy; "
                "copy the tensor to a contiguous one first"
            )
        return self._view(tuple(sizes), (*old.strides[:pinned], *strides), self.offset)

    def rearrange(
        self, src_pattern: Sequence[Any], dst_pattern: Sequence[Any], fixed_sizes: dict[str, int] | None = None
    ) -> NkiTensor:
        """Split, reorder and merge named dimensions, as einops does; groups are tuples of names."""
        sizes = dict(fixed_sizes or {})
        if len(src_pattern) != self.layout.ndim:
            raise _fail(f"rearrange: {len(src_pattern)} source names for {self.layout.ndim} dimensions")
        view, names = self, []
        for entry in src_pattern:
            group = (entry,) if isinstance(entry, str) else tuple(entry)
            dim = len(names)
            if len(group) == 1 and isinstance(entry, str):
                sizes.setdefault(entry, view.layout.shape[dim])
            else:
                view = view.reshape_dim(dim, [sizes.get(n, -1) for n in group])
                for n, size in zip(group, view.layout.shape[dim : dim + len(group)], strict=True):
                    sizes[n] = size
            names.extend(group)
        flat = [n for entry in dst_pattern for n in ((entry,) if isinstance(entry, str) else entry)]
        if sorted(flat) != sorted(names):
            raise _fail(f"rearrange: the two patterns name different dimensions, {names} and {flat}")
        view = view.permute([names.index(n) for n in flat])
        for dim, entry in enumerate(dst_pattern):
            if not isinstance(entry, str) and len(entry) > 1:
                view = view.flatten_dims(dim, dim + len(entry) - 1)
        return view

    def slice(self, dim: int, start: int, end: int, step: int = 1) -> NkiTensor:
        """Elements ``start`` to ``end`` (exclusive) of one dimension, every ``step``-th."""
        dim = self._check_dim(dim, "slice", partition_ok=True)
        key: list[Any] = [slice(None)] * self.layout.ndim
        key[dim] = slice(start, end, step)
        return self[tuple(key)]

    def select(self, dim: int, index: Any) -> NkiTensor:
        """One element of a dimension, which is removed; the index may be a (1, 1) tensor or a register."""
        dim = self._check_dim(dim, "select", partition_ok=not isinstance(index, (NkiTensor, VirtualRegister)))
        if not isinstance(index, (NkiTensor, VirtualRegister)):
            key: list[Any] = [slice(None)] * self.layout.ndim
            key[dim] = index
            return self[tuple(key)]
        self._not_indirect("select")
        _check_index(index, "select", single=True)
        shape, strides = self.layout.shape, self.layout.strides
        view = self._view((*shape[:dim], *shape[dim + 1 :]), (*strides[:dim], *strides[dim + 1 :]), self.offset)
        return view._indirectly(Indirection("scalar", index, strides[dim], shape[dim], None, True))

    def vector_select(self, dim: int, vector_offset: NkiTensor) -> NkiTensor:
        """A different row of an HBM tensor for each partition: dimension 0 is indexed by ``vector_offset`` (P, 1)."""
        if dim != 0:
            raise _fail(f"vector_select on dimension {dim}; only dimension 0 can be indexed a partition at a time")
        if self.layout.on_chip:
            raise _fail("vector_select needs an HBM tensor; gather on chip with nisa.nc_n_gather or nisa.local_gather")
        self._not_indirect("vector_select")
        _check_index(vector_offset, "vector_select")
        shape, strides = self.layout.shape, self.layout.strides
        view = self._view((vector_offset.layout.shape[0], *shape[1:]), strides, self.offset)
        return view._indirectly(Indirection("vector", vector_offset, strides[0], shape[0], 0, True))

    def _not_indirect(self, what: str) -> None:
        if self.indirection is not None:
            raise _fail(f"{what}: this view is addressed at run time already, and only one dynamic index is possible")

    def _indirectly(self, indirection: Indirection) -> NkiTensor:
        old = self.layout
        self.indirection = indirection
        self.layout = intern_layout(
            old.shape, old.strides, old.dtype, old.host, old.region, old.storage_free, indirection.kind, old.start
        )
        return self

    def ap(
        self, pattern: Sequence[Sequence[int]], offset: int | None = None, scalar_offset: Any = None,
        vector_offset: NkiTensor | None = None, indirect_dim: int = 0, dtype: Any = None,
    ) -> NkiTensor:  # fmt: skip
        """An explicit access pattern ``[[stride, count], ...]`` over the storage, in elements.

        ``offset`` is added to the start of the view's storage offset (None keeps the view's own). ``scalar_offset``
        (a (1, 1) tensor or register) and ``vector_offset`` (one index a partition) move the start at run time, in steps
        of the stride of ``indirect_dim`` of this tensor.

        Raises:
            ValidationError: both offsets are given, a partition stride is not the storage's free size, or the pattern
                reaches outside the storage.
        """
        old = self.layout
        kind = old.dtype if dtype is None else as_dtype(dtype)
        host, free = old.host, old.storage_free
        base = self.offset
        if kind is not old.dtype:
            host = self._host_of(kind)
            free = free * old.host.itemsize // host.itemsize
            base = base * old.host.itemsize // host.itemsize
        shape = tuple(int(entry[1]) for entry in pattern)
        strides = tuple(int(entry[0]) for entry in pattern)
        if not 1 <= len(shape) <= 5:
            raise _fail(f"an access pattern has 1 to 5 dimensions, this one {len(shape)}")
        if min(shape) < 1:
            raise _fail(f"an access pattern needs at least one element in each dimension, this one has counts {shape}")
        view = _new(type(self))
        view.storage = self.storage
        view.offset = base + (0 if offset is None else int(offset))
        view.indirection = None
        view._array = None
        start = _start(self.storage, view.offset, free) if old.on_chip and self.storage is not None else 0
        view.layout = intern_layout(shape, strides, kind, host, old.region, free, None, start)
        if old.on_chip and shape[0] > 1 and strides[0] != free:
            raise _fail(
                f"the partition stride of an on-chip pattern must be the storage's free size, {free} elements, "
                f"not {strides[0]}; every partition makes the same access"
            )
        if scalar_offset is not None and vector_offset is not None:
            raise _fail("scalar_offset and vector_offset exclude each other")
        index = scalar_offset if scalar_offset is not None else vector_offset
        if index is None:
            _check_reach(view)
            return view
        # The step of the index is a stride of the tensor that ap() was called on, not of the pattern.
        scale = old.host.itemsize if kind is not old.dtype else 1
        divide = host.itemsize if kind is not old.dtype else 1
        stride = old.strides[indirect_dim] * scale // divide
        limit = old.shape[indirect_dim]
        _check_index(index, "ap", single=scalar_offset is not None)
        if scalar_offset is not None:
            return view._indirectly(Indirection("scalar", index, stride, limit, None))
        if old.on_chip:
            raise _fail("vector_offset indexes HBM tensors; gather on chip with nisa.nc_n_gather or nisa.local_gather")
        if indirect_dim != 0:
            raise _fail(f"vector_offset works on dimension 0 of the tensor, not {indirect_dim}")
        return view._indirectly(Indirection("vector", index, stride, limit, 0))

    def _host_of(self, kind: DType) -> np.dtype:
        """Host type of a reinterpretation; refused where narrow floats are stored wide."""
        host = numpy_dtype(kind, self.storage is None or self.storage.host is self.storage.dtype.numpy)
        if (
            self.storage is not None
            and self.storage.host is not self.storage.dtype.numpy
            and host is not self.storage.host
        ):
            raise _fail(
                "reinterpreting bits is impossible with NKI_PRECISE_FP=0, which stores narrow floats as float32"
            )
        return host

    def view(self, dtype: Any) -> NkiTensor:
        """The same bytes as another type; the last dimension grows or shrinks with the ratio of the sizes."""
        kind = as_dtype(dtype)
        old = self.layout
        if kind is old.dtype:
            return self
        self._not_indirect("view")
        host = self._host_of(kind)
        before, after = old.host.itemsize, host.itemsize
        shape, strides = list(old.shape), list(old.strides)
        if before != after:
            if strides[-1] != 1 and shape[-1] != 1:
                raise _fail(f"view({kind}): the last dimension has stride {strides[-1]}, it must be contiguous")
            if shape[-1] * before % after or self.offset * before % after:
                raise _fail(
                    f"view({kind}): the last dimension, {shape[-1]} x {before} bytes from byte {self.offset * before}, "
                    f"does not divide into elements of {after} bytes"
                )
            if any(s * before % after for s in strides[:-1]):
                raise _fail(f"view({kind}): strides {strides} of {before} bytes are not multiples of {after} bytes")
            shape[-1] = shape[-1] * before // after
            strides = [s * before // after for s in strides[:-1]] + [1]
        view = _new(type(self))
        view.storage = self.storage
        view.offset = self.offset * before // after
        view.indirection = None
        view._array = None
        view.layout = intern_layout(
            tuple(shape), tuple(strides), kind, host, old.region, old.storage_free * before // after, None, old.start
        )
        return view

    def reinterpret_cast(self, dtype: Any) -> NkiTensor:
        """Another name of :meth:`view`."""
        return self.view(dtype)

    def indirect(self, index: NkiTensor, num_elem: int | None = None) -> NkiTensor:
        """A view whose free-dimension columns are chosen at run time (tensor indirection, NeuronCore-v4 and later).

        Offset i is ``index[i % G, i // G]`` with groups of G partitions (16; 32 on the Tensor engine).
        """
        self._not_indirect("indirect")
        old = self.layout
        if not old.on_chip:
            raise _fail("indirect() addresses SBUF and PSUM; use vector_select or ap(vector_offset=...) for HBM")
        if index.layout.shape[0] != old.shape[0]:
            raise _fail(
                f"indirect(): the index has {index.layout.shape[0]} partitions and the tensor {old.shape[0]}; "
                "they must agree"
            )
        count = index.layout.size if num_elem is None else int(num_elem)
        view = self._view((old.shape[0], count), (old.strides[0], 1), self.offset)
        return view._indirectly(Indirection("tensor", index, 1, old.free_size, 1))

    # Values

    def array(self) -> np.ndarray:
        """The elements as a NumPy view of the storage (writes go through); for direct views only."""
        array = self._array
        if array is None:
            array = self._array = self._build_array(self.offset)
        return array

    def _build_array(self, offset: int) -> np.ndarray:
        storage, layout = self.storage, self.layout
        itemsize = layout.itemsize
        if storage.pitch == storage.free_bytes:
            return np.ndarray(
                layout.shape, layout.host, storage.data, storage.base + offset * itemsize, layout.byte_strides
            )
        free = layout.storage_free
        partition, within = divmod(offset, free)
        strides = (layout.strides[0] // free * storage.pitch, *layout.byte_strides[1:])
        start = storage.base + partition * storage.pitch + within * itemsize
        return np.ndarray(layout.shape, layout.host, storage.data, start, strides)

    def resolved(self, offset: int) -> NkiTensor:
        """This view as a direct one that starts at ``offset``: what a dynamic address came to."""
        old = self.layout
        view = _new(type(self))
        view.storage = self.storage
        view.layout = intern_layout(
            old.shape, old.strides, old.dtype, old.host, old.region, old.storage_free, None, old.start
        )
        view.offset = offset
        view.indirection = None
        view._array = None
        return view

    def mask_array(self) -> np.ndarray:
        """The written-bytes mask under this view, with a trailing dimension for the bytes of an element."""
        storage, layout = self.storage, self.layout
        item, shape = layout.itemsize, (*layout.shape, layout.itemsize)
        if storage.arena is None:
            return np.ndarray(shape, np.bool_, storage.mask, self.offset * item, (*layout.byte_strides, 1))
        free = layout.storage_free
        partition, within = divmod(self.offset, free)
        start = storage.base + partition * storage.pitch + within * item
        strides = (layout.strides[0] // free * storage.pitch, *layout.byte_strides[1:], 1)
        return np.ndarray(shape, np.bool_, storage.arena, start, strides)

    def partition_start(self) -> int:
        """First partition that the view touches (on chip), with the address the tensor was placed at."""
        address = self.storage.allocation.address
        first = self.offset // self.layout.storage_free if self.layout.storage_free else 0
        return first + (address[0] if address else 0)


def _check_index(index: Any, what: str, single: bool = False) -> None:
    """Refuse what cannot hold run-time indices: a register for a single one, or integers in SBUF."""
    if single and isinstance(index, (VirtualRegister, int, np.integer)):
        return
    if not isinstance(index, NkiTensor):
        kinds = "a register or a tensor of one element" if single else "a tensor with one index a partition"
        raise _fail(f"{what}: the index is {index!r}; it must be {kinds}")
    layout = index.layout
    if layout.region is not MemoryRegion.sbuf or not is_integer(layout.dtype):
        raise _fail(
            f"{what}: the index is {layout.dtype} in {layout.region.value}; it must be integers in sbuf, load it first"
        )
    if single and layout.size != 1:
        raise _fail(f"{what}: the index has {layout.size} elements {list(layout.shape)}; it must have one, slice it")


_new = object.__new__


def _start(storage: Storage | None, offset: int, free: int) -> int:
    """Start class of an on-chip view at ``offset``."""
    address = storage.allocation.address if storage is not None else None
    return start_class(offset // free + (address[0] if address else 0))


def _infer(sizes: list[int], total: int, what: str) -> list[int]:
    """Sizes with -1 replaced; the product must be ``total``."""
    known = 1
    for n in sizes:
        known *= n if n != -1 else 1
    if sizes.count(-1) == 1 and known and total % known == 0:
        sizes = [total // known if n == -1 else n for n in sizes]
        known = total
    if known != total or -1 in sizes:
        raise _fail(f"{what}: {total} elements do not fit this shape")
    return sizes


def _reshaped_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], new_shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Strides of ``new_shape`` over the same memory, or None where a copy would be needed (as torch's view)."""
    # Merge what is contiguous into chunks of (size, step), then carve the new shape out of them.
    chunks: list[list[int]] = []
    for size, step in zip(shape, strides, strict=True):
        if size == 1:
            continue
        if chunks and chunks[-1][1] == step * size:
            chunks[-1][0] *= size
            chunks[-1][1] = step
        else:
            chunks.append([size, step])
    result: list[int] = []
    remaining, step = chunks[-1] if chunks else (1, 1)
    where = len(chunks) - 1
    for size in reversed(new_shape):
        if size == 1:
            result.append(step)
            continue
        if remaining == 1 and where > 0:
            where -= 1
            remaining, step = chunks[where]
        if remaining % size:
            return None
        result.append(step)
        step *= size
        remaining //= size
    return tuple(reversed(result))


def _check_reach(view: NkiTensor) -> None:
    """Refuse a pattern that leaves its storage."""
    storage = view.storage
    if storage is None:
        return
    layout = view.layout
    reach = view.offset + sum((n - 1) * s for n, s in zip(layout.shape, layout.strides, strict=True))
    total = storage.size_bytes // layout.itemsize
    if view.offset < 0 or reach >= total:
        raise _fail(
            f"the access pattern {view.get_pattern()} from element {view.offset} reaches element {reach} of a storage "
            f"with {total}; shorten the counts or the offset"
        )


def is_x4(tensor: NkiTensor) -> bool:
    """Whether the tensor holds packed MX words."""
    return is_packed(tensor.layout.dtype)
