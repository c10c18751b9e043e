"""The ``torch.distributed`` backend ``neuron``: simulated ranks exchange values, and every collective is written down for its time.

Ranks are processes of this machine (see ``trn launch``); values travel through gloo, so a job computes what it computes there.
A collective on device tensors arrives in :func:`collective` as an operation like any other, which notes its kind, bytes and ranks;
the fabric model prices them afterwards.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch

from opentrn.pytorch import memory, tensor

__all__ = ["Event", "collective", "events", "is_collective", "priced", "register", "write_events"]

EVENTS_FILE = "OPENTRN_COLLECTIVES_FILE"
_NAMESPACES = ("c10d", "_c10d_functional", "_c10d_functional_autograd")


class Event(NamedTuple):
    """One collective of this rank: the operation in the fabric's words, bytes as the fabric counts them, and the ranks."""

    op: str
    size_bytes: int
    ranks: tuple[int, ...]


events: Counter[Event] = Counter()

# ATen name -> (fabric operation, which bytes count: the buffer, the gathered output, the scattered input).
_KINDS = {
    "allreduce_": ("all_reduce", "in"), "allreduce_coalesced_": ("all_reduce", "in"), "all_reduce": ("all_reduce", "in"),
    "all_reduce_": ("all_reduce", "in"), "all_reduce_coalesced": ("all_reduce", "in"), "all_reduce_coalesced_": ("all_reduce", "in"),
    "reduce_": ("all_reduce", "in"), "allgather_": ("all_gather", "gathered"), "_allgather_base_": ("all_gather", "gathered"),
    "allgather_into_tensor_coalesced_": ("all_gather", "gathered"), "allgather_coalesced_": ("all_gather", "gathered"),
    "all_gather_into_tensor": ("all_gather", "gathered"), "all_gather_into_tensor_out": ("all_gather", "gathered"),
    "all_gather_into_tensor_coalesced": ("all_gather", "gathered"), "gather_": ("all_gather", "gathered"),
    "reduce_scatter_": ("reduce_scatter", "scattered"), "_reduce_scatter_base_": ("reduce_scatter", "scattered"),
    "reduce_scatter_tensor_coalesced_": ("reduce_scatter", "scattered"), "reduce_scatter_tensor": ("reduce_scatter", "in"),
    "reduce_scatter_tensor_coalesced": ("reduce_scatter", "in"), "alltoall_": ("all_to_all", "in"),
    "alltoall_base_": ("all_to_all", "in"), "all_to_all_single": ("all_to_all", "in"), "broadcast_": ("broadcast", "in"),
    "broadcast": ("broadcast", "in"), "scatter_": ("broadcast", "in"), "send": ("send_recv", "in"), "recv_": ("send_recv", "none"),
    "recv_any_source_": ("send_recv", "none"),
}  # fmt: skip


def is_collective(func: Any) -> bool:
    """Whether an operation is one of ``torch.distributed``."""
    return func.namespace in _NAMESPACES


def register() -> None:
    """Make ``init_process_group("neuron")`` known, for device tensors and for those of the host."""
    import torch.distributed as dist

    if dist.is_available() and "neuron" not in dist.Backend.backend_list:
        dist.Backend.register_backend("neuron", _create, devices=["neuron", "cpu"])
        _teach_averages()


def _create(store: Any, rank: int, size: int, timeout: Any) -> Any:
    import torch.distributed as dist

    return dist.ProcessGroupGloo(store, rank, size, timeout)


def collective(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Run one operation of ``torch.distributed`` on the values of device tensors, and note it."""
    from torch.utils import _pytree as pytree

    inputs: dict[int, Any] = {}

    def plain(x: Any) -> Any:
        if type(x) is tensor.NeuronTensor:
            inputs[id(x._data)] = x
            return x._data
        return x

    if func._schema.name.endswith("_wrap_tensor_autograd"):
        # Marks a result that somebody still has to wait for; here it is there already.
        waited = torch.ops._c10d_functional.wait_tensor(args[0]._data)
        return tensor.NeuronTensor(waited, args[0]._buffer)
    _note(func, args)
    plain_args, plain_kwargs = pytree.tree_map(plain, (args, kwargs))
    out = func(*plain_args, **plain_kwargs)

    def wrapped(x: Any) -> Any:
        if type(x) is not torch.Tensor:
            return x
        known = inputs.get(id(x))
        if known is not None:
            return known
        for base in inputs.values():
            if base._data.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() and x.numel():
                return tensor.NeuronTensor(x, base._buffer)
        return tensor.to_device(x, memory.current_device())

    return pytree.tree_map(wrapped, out)


def _teach_averages() -> None:
    """Average as sum and division: gloo, which carries the values, has no average of its own."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d

    for name, position in (("all_reduce", 1), ("reduce_scatter_tensor", 2), ("reduce_scatter", 2), ("reduce", 2)):
        plain = getattr(c10d, name)

        def averaging(*args: Any, _plain: Any = plain, _position: int = position, **kwargs: Any) -> Any:
            op = args[_position] if len(args) > _position else kwargs.get("op")
            if op != dist.ReduceOp.AVG:
                return _plain(*args, **kwargs)
            if len(args) > _position:
                args = (*args[:_position], dist.ReduceOp.SUM, *args[_position + 1 :])
            else:
                kwargs["op"] = dist.ReduceOp.SUM
            work = _plain(*args, **kwargs)
            if work is not None:
                work.wait()
            target = args[0] if args else kwargs.get("tensor", kwargs.get("output"))
            target.div_(dist.get_world_size(kwargs.get("group")))
            return work

        functools.update_wrapper(averaging, plain)
        setattr(c10d, name, averaging)
        setattr(dist, name, averaging)


def _note(func: Any, args: tuple) -> None:
    name = func._schema.name.split("::")[-1]
    kind = _KINDS.get(name)
    if kind is None:
        return
    op, counted = kind
    ranks = _ranks(func, args)
    size = _bytes(args, counted, len(ranks))
    if size:
        events[Event(op, size, ranks)] += 1


def _bytes(args: tuple, counted: str, num_ranks: int) -> int:
    """Bytes of the collective: of c10d's ``(outputs, inputs, ...)`` the larger side is the whole, the smaller one rank's part."""
    if counted == "none":
        return 0
    sides = [_size(a) for a in args if isinstance(a, (torch.Tensor, list, tuple))]
    sides = [s for s in sides if s]
    if not sides:
        return 0
    if counted == "in":
        return sides[-1]
    return max(sides) if len(sides) > 1 else sides[0] * num_ranks


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (list, tuple)):
        return sum(_size(v) for v in value)
    return 0


def _ranks(func: Any, args: tuple) -> tuple[int, ...]:
    """Global ranks of the group that an operation names."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    for value in args:
        group = None
        if isinstance(value, torch.ScriptObject) and "ProcessGroup" in str(value._type()):
            group = dist.ProcessGroup.unbox(value)
        elif isinstance(value, str) and func.namespace != "c10d":
            try:
                group = distributed_c10d._resolve_process_group(value)  # type: ignore[arg-type]
            except RuntimeError:
                continue  # the name of a reduction
        if group is not None:
            return tuple(dist.get_process_group_ranks(group))
    return ()


def write_events(path: str | None = None) -> None:
    """Write this rank's collectives where ``trn launch`` reads them."""
    target = path or os.environ.get(EVENTS_FILE)
    if target:
        rows = [{"op": e.op, "size_bytes": e.size_bytes, "ranks": list(e.ranks), "count": n} for e, n in events.items()]
        Path(target).write_text(json.dumps(rows))


def priced(rows: list[dict[str, Any]], topology_name: str, num_instances: int = 1) -> list[dict[str, Any]]:
    """The rows of :func:`write_events` with ``latency_us`` (one call) and ``total_us`` on a topology."""
    from opentrn.fabric import RankGroup, collective_time_us, topology

    where = topology(topology_name, num_instances)
    result = []
    for row in rows:
        group = RankGroup.of(row["ranks"]) if row["ranks"] else RankGroup(1)
        latency = 0.0 if group.num_ranks < 2 else float(collective_time_us(row["op"], row["size_bytes"], group, where))
        result.append({**row, "latency_us": latency, "total_us": latency * row["count"]})
    return sorted(result, key=lambda r: -r["total_us"])
