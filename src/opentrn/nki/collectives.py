"""``nki.collectives``: communication between ranks from inside a kernel.

Operations on a group of one rank always work; between ranks they need a launch that connects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentrn.neuroncore import machine
from opentrn.neuroncore.isa import collectives as _operations
from opentrn.neuroncore.isa.collectives import (
    ReplicaGroup,
    all_gather,
    all_gather_v,
    all_reduce,
    all_to_all,
    all_to_all_v,
    collective_permute,
    reduce_scatter,
)
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.tensor import NKIObject, NkiTensor

__all__ = [
    "NKIObject", "NkiTensor", "ReplicaGroup", "all_gather", "all_gather_v", "all_reduce", "all_to_all", "all_to_all_v",
    "collective_permute", "collective_permute_implicit", "collective_permute_implicit_current_processing_rank_id",
    "collective_permute_implicit_reduce", "rank_id", "reduce_scatter",
]  # fmt: skip

Channels = Sequence[Sequence[NkiTensor]]


def _one_each(channels: Channels, what: str) -> list[NkiTensor]:
    from opentrn.errors import ValidationError
    from opentrn.neuroncore.source import caller

    found = []
    for n, channel in enumerate(channels):
        tensors = list(channel) if isinstance(channel, (list, tuple)) else [channel]
        if len(tensors) != 1:
            raise ValidationError(f"{what}: channel {n} has {len(tensors)} tensors; give exactly one", caller())
        found.append(tensors[0])
    return found


def collective_permute_implicit(
    srcs_by_channel: Channels, dsts_by_channel: Channels, replica_group: ReplicaGroup,
    channel_ids: Sequence[int] = (0,), priority: int | None = None, name: str | None = None,
) -> Any:  # fmt: skip
    """Pass each channel's source to the next rank of the ring that the group forms, and receive the previous one's."""
    return _operations.permute_implicit(
        _one_each(srcs_by_channel, "srcs_by_channel"), _one_each(dsts_by_channel, "dsts_by_channel"), replica_group,
        tuple(channel_ids), priority, name=name,
    )  # fmt: skip


def collective_permute_implicit_reduce(
    srcs0_by_channel: Channels, srcs1_by_channel: Channels, dsts_by_channel: Channels,
    replica_group: ReplicaGroup, op: Any, channel_ids: Sequence[int] = (0,), priority: int | None = None,
    name: str | None = None,
) -> Any:  # fmt: skip
    """Reduce two sources with ``op``, pass the result to the next rank of the ring, and receive the previous one's."""
    sources = _one_each(srcs0_by_channel, "srcs0_by_channel") + _one_each(srcs1_by_channel, "srcs1_by_channel")
    return _operations.permute_implicit_reduce(
        sources,
        _one_each(dsts_by_channel, "dsts_by_channel"),
        replica_group,
        op,
        tuple(channel_ids),
        priority,
        name=name,
    )


def collective_permute_implicit_current_processing_rank_id(
    iteration_id: int, replica_group: ReplicaGroup, channel_id: int = 0, name: str | None = None
) -> VirtualRegister:
    """Register with the rank whose data the ring holds at step ``iteration_id``: this rank at 0, then its
    predecessors."""
    return VirtualRegister(_operations.processing_rank(machine.current(), int(iteration_id), replica_group))


def rank_id(name: str | None = None) -> VirtualRegister:
    """Register with the rank of the logical core that the kernel runs on; 0 where it runs alone."""
    return VirtualRegister(_operations.rank(machine.current()))
