"""Programs of a launch grid that share a core run one after another: one stream, as the compiler makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore.memory import Allocation
from opentrn.neuroncore.program import Program

__all__ = ["by_core"]


def by_core(programs: list[Program]) -> list[Program]:
    """One program a core, in order of the cores.

    Raises:
        ValidationError: no programs, or programs of different kinds of core.
    """
    if not programs:
        raise ValidationError("there is no program to schedule; the launch issued no instructions")
    if any(p.hardware is not programs[0].hardware for p in programs):
        raise ValidationError("the programs of a launch were recorded for different cores")
    cores: dict[int, list[Program]] = {}
    for program in programs:
        cores.setdefault(program.core_index, []).append(program)
    return [_joined(cores[c]) if len(cores[c]) > 1 else cores[c][0] for c in sorted(cores)]


def _joined(parts: list[Program]) -> Program:
    """``parts`` as one program; tensors of the launch stay shared, all others get numbers of their own."""
    plans = {id(p): p for part in parts for p in part.plans}
    index = {key: n for n, key in enumerate(plans)}
    launch = _launch_tensors(parts[0])
    allocations: list[Allocation] = []
    plan, site, operand_allocation = [], [], []
    sites, dependencies, markers, names = [], [], [], {}
    base = 0
    for part in parts:
        own = part.allocations[: len(part.allocations) - launch]
        shift = len(allocations)
        for a in own:
            moved = Allocation(
                a.id + shift,
                a.region,
                a.num_partitions,
                a.bytes_per_partition,
                a.name,
                a.site,
                a.address,
                a.dtype,
                a.shape,
            )
            moved.first_use = a.first_use + base if a.first_use >= 0 else -1
            moved.last_use = a.last_use + base
            allocations.append(moved)
        remap = np.array([index[id(p)] for p in part.plans], dtype=np.int32)
        plan.append(remap[part.plan] if len(part) else part.plan)
        site.append(part.site + len(sites))
        sites += part.sites
        operand_allocation.append(
            np.where(part.operand_allocation >= 0, part.operand_allocation + shift, part.operand_allocation)
        )
        dependencies += [(a + base, b + base) for a, b in part.dependencies]
        markers += [(at + base, kind, value) for at, kind, value in part.markers]
        names |= {at + base: name for at, name in part.names.items()}
        base += len(part)
    tail = parts[-1].allocations[len(parts[-1].allocations) - launch :] if launch else []
    return replace(
        parts[0],
        plans=list(plans.values()),
        plan=np.concatenate(plan),
        site=np.concatenate(site),
        sites=sites,
        allocations=[*allocations, *tail],
        operand_allocation=np.concatenate(operand_allocation),
        operand_offset=np.concatenate([part.operand_offset for part in parts]),
        dependencies=dependencies,
        markers=markers,
        names=names,
    )


def _launch_tensors(program: Program) -> int:
    """How many tensors at the end of ``allocations`` belong to the launch; they are numbered -1, -2, ... from the
    end.
    """
    count = 0
    allocations = program.allocations
    while count < len(allocations) and allocations[-1 - count].id == -1 - count:
        count += 1
    return count
