"""Collective operations between ranks, issued from inside a kernel.

What an operation does to values is here; how bytes reach another rank is a :class:`Communicator`'s business, which
whoever launches the kernel supplies. A group of one rank needs none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from opentrn.errors import UnsupportedError, ValidationError
from opentrn.neuroncore import indirection, undefined
from opentrn.neuroncore.alu import operator
from opentrn.neuroncore.convert import storer, widen
from opentrn.neuroncore.instruction import (
    ANY,
    HBM,
    SBUF,
    Engine,
    In,
    Issue,
    OutTensors,
    Tensors,
    instruction,
    static,
)
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = [
    "Communicator", "ReplicaGroup", "all_gather", "all_gather_v", "all_reduce", "all_to_all", "all_to_all_v",
    "collective_permute", "permute_implicit", "permute_implicit_reduce", "processing_rank", "rank",
    "reduce_scatter",
]  # fmt: skip

_REDUCTIONS = ("add", "minimum", "maximum")
_PRIORITIES = (0, 1, 2, 3)
_MAX_CHANNELS = 4


class ReplicaGroup:
    """Which ranks take part in a collective: disjoint lists of rank numbers, each a group of its own."""

    def __init__(self, groups: Any = ()) -> None:
        if isinstance(groups, ReplicaGroup):
            groups = groups.groups
        try:
            self.groups = tuple(tuple(int(r) for r in group) for group in groups)
        except TypeError:
            raise ValidationError(
                f"a ReplicaGroup is lists of ranks, such as [[0, 1], [2, 3]], not {groups!r}", caller()
            ) from None
        ranks = [r for group in self.groups for r in group]
        if len(set(ranks)) != len(ranks):
            twice = next(r for r in ranks if ranks.count(r) > 1)
            raise ValidationError(f"rank {twice} is in two lists of {self.groups}; groups must not overlap", caller())

    def of(self, rank: int) -> tuple[int, ...]:
        """The group that ``rank`` belongs to, in order; empty if it is in none."""
        return next((group for group in self.groups if rank in group), ())

    def __iter__(self) -> Any:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ReplicaGroup) and other.groups == self.groups

    def __hash__(self) -> int:
        return hash(self.groups)

    def __repr__(self) -> str:
        return f"ReplicaGroup({[list(g) for g in self.groups]})"


class Communicator(Protocol):
    """The way to the other ranks."""

    rank: int

    def share(self, core: Any, members: tuple[int, ...], value: Any) -> dict[int, Any]:
        """Give ``value`` to every member and return what each gave, by rank; every member makes the same calls in
        order."""
        ...


def rank(core: Any) -> int:
    """Rank of the logical core that the kernel runs on; 0 where it runs alone."""
    return core.communicator.rank if core.communicator is not None else 0


def _share(core: Any, name: str, members: tuple[int, ...], value: Any) -> dict[int, Any]:
    me = rank(core)
    if members == (me,):
        return {me: value}
    if core.communicator is None:
        raise UnsupportedError(
            f"nki.collectives.{name} between ranks {list(members)}, but this kernel runs alone as rank {me}; launch "
            "it with "
            "ranks, or use a replica group of one"
        )
    return core.communicator.share(core, members, value)


def _members(core: Any, i: Issue) -> tuple[int, ...]:
    members = i.replica_group.of(rank(core))
    if not members:
        raise i.fail(f"rank {rank(core)} is in no list of {i.replica_group}")
    return members


def _values(core: Any, i: Issue, tensor: NkiTensor) -> np.ndarray:
    mask = undefined.defined(tensor)
    if mask is not None:
        source = tensor.storage.undefined_by or caller()
        core.report_undefined(
            f"{i.instruction.name}: {int(mask.size - mask.sum())} of {mask.size} elements that are sent were "
            "never written; write them first",
            source,
        )
    return tensor.array().copy()


def _put(core: Any, tensor: NkiTensor, values: np.ndarray) -> None:
    target = np.empty(tensor.shape, tensor.layout.host)
    storer(tensor.layout)(target, values.reshape(tensor.shape))
    indirection.write(core, tensor, target)


def _reduced(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    found = operator(name)
    assert found is not None
    combine = found.function
    total = widen(arrays[0]).copy()
    for array in arrays[1:]:
        total = combine(total, widen(array))
    return total


def _check_lists(i: Issue, sbuf: bool = True, single: bool = False) -> None:
    srcs, dsts = i.srcs, i.dsts
    if len(srcs) != len(dsts) or not srcs:
        raise i.fail(f"{len(srcs)} sources and {len(dsts)} destinations; give as many of each, at least one")
    if single and len(srcs) != 1:
        raise i.fail(f"{len(srcs)} sources; this operation takes one tensor")
    on_chip = {layout.on_chip for layout in (*srcs, *dsts)}
    if len(on_chip) > 1:
        raise i.fail("sources and destinations are in different memories; put all in HBM or all in SBUF")
    if on_chip == {True} and not sbuf:
        raise i.fail("this operation works on HBM tensors; copy the tile to HBM first")
    if on_chip == {True} and len(srcs) > 1:
        raise i.fail(f"{len(srcs)} tensors in SBUF; several at once are possible only in HBM")
    for src, dst in zip(srcs, dsts, strict=True):
        if src.dtype is not dst.dtype:
            raise i.fail(f"a source is {src.dtype} and its destination {dst.dtype}; they must agree")
    if i.priority is not None and (i.core.generation < 4 or i.priority not in _PRIORITIES):
        raise i.fail(f"priority={i.priority}; it is 0 (first) to 3, on NeuronCore-v4 and newer")
    group = i.fields.get("replica_group")
    if group is not None and not isinstance(group, ReplicaGroup):
        raise i.fail(f"replica_group is {group!r}; it must be an nki.collectives.ReplicaGroup")


def _check_reduction(i: Issue) -> str:
    found = operator(i.op)
    if found is None or found.name not in _REDUCTIONS:
        raise i.fail(f"op={getattr(i.op, '__name__', i.op)}; it reduces with nl.add, nl.minimum or nl.maximum")
    return found.name


def _check_sizes(i: Issue, members: int, src_times: int, dst_times: int) -> None:
    for src, dst in zip(i.srcs, i.dsts, strict=True):
        if src.size * src_times != dst.size * dst_times:
            raise i.fail(
                f"a source has {src.size} elements {list(src.shape)} and its destination {dst.size} "
                f"{list(dst.shape)}; over "
                f"{members} ranks the destination must have {src.size * src_times // dst_times}"
            )


def _group_size(i: Issue) -> int:
    sizes = {len(g) for g in i.replica_group}
    if len(sizes) != 1:
        raise i.fail(f"{i.replica_group} has lists of different lengths; they must be equally long")
    return sizes.pop()


def _check_dim(i: Issue, *sbuf_dims: int) -> None:
    allowed = (0, *sbuf_dims) if i.srcs[0].on_chip else (0,)
    if i.collective_dim not in allowed:
        raise i.fail(f"collective_dim={i.collective_dim}; it must be {' or '.join(map(str, allowed))}")
    if i.srcs[0].on_chip and any(layout.ndim != 2 for layout in (*i.srcs, *i.dsts)):
        raise i.fail("a collective in SBUF works on 2-D tensors")


Run = Callable[..., None]


def _on_pairs(i: Issue, work: Callable[[Any, NkiTensor, NkiTensor], None]) -> Run:
    """A ``run`` that works source by source."""
    count = len(i.srcs)

    def run(core: Any, *args: Any) -> None:
        tensors = args[-2 * count :]
        for src, dst in zip(tensors[:count], tensors[count:], strict=True):
            work(core, src, dst)

    return run


@instruction
class all_reduce:
    """Every rank gets the reduction (``nl.add``, ``nl.minimum``, ``nl.maximum``) of all ranks' sources."""

    operands = dict(srcs=Tensors(ANY), dsts=OutTensors(ANY), replica_group=static(), op=static(), priority=static(None))
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_lists(i)
        _check_reduction(i)
        _check_sizes(i, _group_size(i), 1, 1)

    def compute(i: Issue):
        name = _check_reduction(i)

        def work(core, src, dst):
            members = _members(core, i)
            found = _share(core, "all_reduce", members, _values(core, i, src))
            _put(core, dst, _reduced(name, [found[r] for r in members]))

        return _on_pairs(i, work)


@instruction
class all_gather:
    """Every rank gets the concatenation of all ranks' sources along ``collective_dim``."""

    operands = dict(
        srcs=Tensors(ANY), dsts=OutTensors(ANY), replica_group=static(), collective_dim=static(), priority=static(None)
    )  # fmt: skip
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_lists(i)
        _check_dim(i, 1)
        _check_sizes(i, _group_size(i), _group_size(i), 1)

    def compute(i: Issue):
        def work(core, src, dst):
            members = _members(core, i)
            found = _share(core, "all_gather", members, _values(core, i, src))
            _put(core, dst, np.concatenate([found[r] for r in members], axis=i.collective_dim))

        return _on_pairs(i, work)


@instruction
class reduce_scatter:
    """Each rank gets its part, along dimension 0, of the reduction of all ranks' sources."""

    operands = dict(
        srcs=Tensors(ANY), dsts=OutTensors(ANY), replica_group=static(), collective_dim=static(), op=static(),
        priority=static(None),
    )  # fmt: skip
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_lists(i)
        _check_dim(i)
        _check_reduction(i)
        _check_sizes(i, _group_size(i), 1, _group_size(i))

    def compute(i: Issue):
        name = _check_reduction(i)

        def work(core, src, dst):
            members = _members(core, i)
            found = _share(core, "reduce_scatter", members, _values(core, i, src))
            total = _reduced(name, [found[r] for r in members])
            _put(core, dst, np.split(total, len(members))[members.index(rank(core))])

        return _on_pairs(i, work)


@instruction
class all_to_all:
    """Each rank sends the r-th part of its source, along dimension 0, to the r-th rank, and gets one part from each."""

    operands = dict(
        srcs=Tensors(HBM), dsts=OutTensors(HBM), replica_group=static(), collective_dim=static(), priority=static(None)
    )  # fmt: skip
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_lists(i, sbuf=False)
        _check_dim(i)
        size = _group_size(i)
        _check_sizes(i, size, 1, 1)
        if i.srcs[0].shape[0] % size:
            raise i.fail(f"dimension 0 of {list(i.srcs[0].shape)} does not divide into {size} parts, one for each rank")

    def compute(i: Issue):
        def work(core, src, dst):
            members = _members(core, i)
            found = _share(core, "all_to_all", members, _values(core, i, src))
            mine = members.index(rank(core))
            _put(core, dst, np.concatenate([np.split(found[r], len(members))[mine] for r in members]))

        return _on_pairs(i, work)


@instruction
class collective_permute:
    """Copy sources between ranks by explicit (source, target) pairs; a rank that is no target keeps its destination."""

    operands = dict(srcs=Tensors(HBM), dsts=OutTensors(HBM), source_target_pairs=static(), priority=static(None))
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_lists(i, sbuf=False, single=True)
        _check_sizes(i, 2, 1, 1)
        targets = [t for _, t in i.source_target_pairs]
        if len(set(targets)) != len(targets):
            raise i.fail(f"source_target_pairs={i.source_target_pairs} sends to one rank twice")

    def compute(i: Issue):
        pairs = i.source_target_pairs
        members = tuple(sorted({int(r) for pair in pairs for r in pair}))

        def work(core, src, dst):
            me = rank(core)
            if me not in members:
                return
            found = _share(core, "collective_permute", members, _values(core, i, src))
            for source, target in pairs:
                if target == me:
                    _put(core, dst, found[source])

        return _on_pairs(i, work)


def _check_channels(i: Issue) -> None:
    channels = i.channel_ids
    if channels != tuple(range(len(channels))) or len(channels) > _MAX_CHANNELS:
        raise i.fail(f"channel_ids={list(channels)}; they count from 0, at most {_MAX_CHANNELS}")
    if len(channels) != len(i.dsts):
        raise i.fail(f"{len(i.dsts)} destinations for {len(channels)} channels; give one for each")


def _predecessor(core: Any, members: tuple[int, ...]) -> int:
    return members[members.index(rank(core)) - 1]


@instruction
class permute_implicit:
    """Send the source of each channel to the next rank of the ring and receive the previous one's."""

    operands = dict(
        srcs=Tensors(HBM + SBUF), dsts=OutTensors(HBM + SBUF), replica_group=static(), channel_ids=static((0,)),
        priority=static(None),
    )  # fmt: skip
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_lists(i, sbuf=len(i.srcs) == 1)
        _check_channels(i)
        _check_sizes(i, _group_size(i), 1, 1)

    def compute(i: Issue):
        def work(core, src, dst):
            members = _members(core, i)
            found = _share(core, "collective_permute_implicit", members, _values(core, i, src))
            _put(core, dst, found[_predecessor(core, members)])

        return _on_pairs(i, work)


@instruction
class permute_implicit_reduce:
    """:class:`permute_implicit` of ``op(srcs0, srcs1)``; ``srcs`` holds srcs0, then srcs1."""

    operands = dict(
        srcs=Tensors(HBM), dsts=OutTensors(HBM), replica_group=static(), op=static(), channel_ids=static((0,)),
        priority=static(None),
    )  # fmt: skip
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_reduction(i)
        _check_channels(i)
        count = len(i.dsts)
        if len(i.srcs) != 2 * count:
            raise i.fail(f"{len(i.srcs)} sources for {count} destinations; each channel has a pair of sources")
        for a, b, dst in zip(i.srcs[:count], i.srcs[count:], i.dsts, strict=True):
            if not a.size == b.size == dst.size:
                raise i.fail(
                    f"sources {list(a.shape)} and {list(b.shape)} and destination {list(dst.shape)} must agree"
                )

    def compute(i: Issue):
        name, count = _check_reduction(i), len(i.dsts)

        def run(core, *args):
            tensors = args[-3 * count :]
            for a, b, dst in zip(tensors[:count], tensors[count : 2 * count], tensors[2 * count :], strict=True):
                members = _members(core, i)
                value = _reduced(name, [_values(core, i, a), _values(core, i, b)])
                found = _share(core, "collective_permute_implicit_reduce", members, value)
                _put(core, dst, found[_predecessor(core, members)])

        return run


def _check_variable(i: Issue) -> None:
    _check_lists(i, sbuf=False, single=True)
    size, layout = _group_size(i), i.metadata_tensor
    rows = 4 if i.has_rdispls else 3
    if layout.dtype != "uint32":
        raise i.fail(f"metadata_tensor is {layout.dtype}; it must be uint32")
    if layout.size < rows * size:
        raise i.fail(
            f"metadata_tensor is {list(layout.shape)}; it holds {rows} rows of {size} counts, one for each rank"
        )


def _variable(i: Issue, name: str, to_all: bool) -> Run:
    """Ranks send counts of elements known only at run time: one chunk to all, or a chunk to each."""
    rows = 4 if i.has_rdispls else 3

    def run(core, *args):
        src, metadata, dst = args[-2], args[_METADATA], args[-1]
        members = _members(core, i)
        size = len(members)
        undefined.require(core, metadata, "a count")
        table = metadata.array().reshape(-1)[: rows * size].reshape(rows, size).astype(np.int64)
        flat = _values(core, i, src).reshape(-1)
        chunks = []
        for k in range(size):
            count, start = table[0, 0 if to_all else k], table[1, 0 if to_all else k]
            if start + count > flat.size:
                raise i.fail(
                    f"a chunk of {count} elements from {start} leaves src, which has {flat.size}; check the metadata"
                )
            chunks.append(flat[start : start + count])
        found = _share(core, name, members, chunks)
        mine, total = members.index(rank(core)), dst.size
        result = dst.array().reshape(-1).copy()
        for k, source in enumerate(members):
            chunk = found[source][mine]
            start = int(table[3, k]) if i.has_rdispls else total // size * k
            if start + chunk.size > total:
                raise i.fail(f"{chunk.size} elements from rank {source} at {start} leave dst, which has {total}")
            result[start : start + chunk.size] = chunk
            table[2, k] = chunk.size
        indirection.write(core, dst, result.reshape(dst.shape))
        if not i.recv_counts_known:
            counts = metadata.array().reshape(-1)
            counts[2 * size : 3 * size] = table[2]
            if not np.may_share_memory(counts, metadata.array()):
                metadata.array()[...] = counts.reshape(metadata.shape)

    return run


_VARIABLE = dict(
    srcs=Tensors(HBM), dsts=OutTensors(HBM), replica_group=static(), metadata_tensor=In(HBM + SBUF),
    recv_counts_known=static(False), has_rdispls=static(False), priority=static(None),
)  # fmt: skip
_METADATA = list(_VARIABLE).index("metadata_tensor")


@instruction
class all_gather_v:
    """Every rank sends one chunk of its source, of a length known at run time, to all; they land in equal slots."""

    operands = _VARIABLE
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_variable(i)
        if i.has_rdispls:
            raise i.fail("has_rdispls=True is not available for all_gather_v; chunks land in equal slots")

    def compute(i: Issue):
        return _variable(i, "all_gather_v", True)


@instruction
class all_to_all_v:
    """Every rank sends each other one a chunk of a length known at run time."""

    operands = _VARIABLE
    engines = (Engine.dma,)
    on_tensors = True

    def check(i: Issue) -> None:
        _check_variable(i)

    def compute(i: Issue):
        return _variable(i, "all_to_all_v", False)


def processing_rank(core: Any, iteration: int, group: ReplicaGroup) -> int:
    """Rank whose data a ring holds at step ``iteration``: the core's own at 0, then its predecessors'."""
    members = group.of(rank(core))
    if not members:
        raise ValidationError(f"rank {rank(core)} is in no list of {group}", caller())
    return members[(members.index(rank(core)) - iteration) % len(members)]
