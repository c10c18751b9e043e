"""The hardware under a job: how many chips of what, and how its ranks are joined."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from opentrn.errors import HardwareError, OpenTrnError
from opentrn.hardware import Chip, Instance, Rack, chip, instance, instances, rack, racks

__all__ = ["Machine", "find_hardware", "machine"]


@dataclass(frozen=True)
class Machine:
    """`num_chips` chips of an instance type or rack. A rank is one logical core: `cores_per_rank` physical ones."""

    name: str
    chip: Chip
    num_chips: int
    chips_per_node: int
    cores_per_rank: int
    spec: str
    collective_runtime: str | None = None
    _cache: dict[Any, float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def ranks_per_chip(self) -> int:
        return self.chip.num_cores // self.cores_per_rank

    @property
    def num_ranks(self) -> int:
        return self.num_chips * self.ranks_per_chip

    @property
    def num_nodes(self) -> int:
        """Instances or racks in use, the last one perhaps in part."""
        return -(-self.num_chips // self.chips_per_node)

    @property
    def memory_gib_per_rank(self) -> float:
        return self.chip.hbm_gib / self.ranks_per_chip

    @property
    def memory_gib_per_core(self) -> float:
        return self.chip.hbm_gib / self.chip.num_cores

    @cached_property
    def topology(self) -> Any:
        from opentrn.fabric import topology

        return topology(
            self.name, self.num_nodes, cores_per_rank=self.cores_per_rank, collectives=self.collective_runtime
        )

    def collective_us(self, operation: str, num_bytes: float, *axes: tuple[int, int]) -> float:
        """Time of a collective over a mesh axis (or a product of axes, each (size, stride)), while the other
        groups of the same axis run theirs."""
        axes = tuple((size, stride) for size, stride in axes if size > 1)
        if not axes or num_bytes <= 0:
            return 0.0
        key = (operation, num_bytes, axes)
        known = self._cache.get(key)
        if known is None:
            from opentrn.fabric import RankGroup, collective_time_us

            known = float(
                collective_time_us(operation, max(1, int(num_bytes)), RankGroup.product(*axes), self.topology)
            )
            self._cache[key] = known
        return known


def find_hardware(name: str) -> Instance | Rack:
    """The instance type or rack called `name`; raises OpenTrnError naming what is near or known."""
    for find in (instance, rack):
        try:
            return find(name)
        except HardwareError:
            continue
    if of_chip := _units_of_chip(name):
        raise OpenTrnError(f"{name} is a chip; name an instance or rack of it: {', '.join(of_chip)}")
    import difflib

    known = [record.name for record in (*instances(), *racks())]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    raise OpenTrnError(
        f"unknown instance or rack {name!r}: "
        + (f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}")
    )


def _units_of_chip(name: str) -> list[str]:
    """Instances and racks that carry the chip called `name`."""
    try:
        wanted = chip(name)
    except HardwareError:
        return []
    found = [unit.name for unit in instances() if unit.accelerator is wanted]
    return found + [unit.name for unit in racks() if unit.chip is wanted]


def machine(
    name: str, num_chips: int | None = None, logical_cores: int | None = None, collective_runtime: str | None = None
) -> Machine:
    """`num_chips` Neuron chips of an instance type or rack (one whole unit by default).

    `logical_cores` is the number of physical cores to a rank (LNC; the chip's default otherwise); `collective_runtime`
    the runtime that carries the collectives (the current one otherwise). Raises OpenTrnError if the hardware carries no
    Neuron chips or cannot supply that number.
    """
    unit = find_hardware(name)
    if isinstance(unit, Rack):
        silicon, per_node = unit.chip, unit.num_chips
    else:
        if not isinstance(unit.accelerator, Chip):
            raise OpenTrnError(
                f"{unit.name} carries {unit.accelerator.title} GPUs, which are modelled by measured efficiency and not "
                "simulated"
            )
        silicon, per_node = unit.accelerator, unit.num_accelerators
    count = per_node if num_chips is None else num_chips
    if count < 1:
        raise OpenTrnError(f"the number of chips must be at least 1, got {count}")
    if count > per_node and count % per_node:
        fitting = -(-count // per_node) * per_node
        raise OpenTrnError(f"{unit.name} comes in units of {per_node} chips and {count} is no multiple, try {fitting}")
    cores = silicon.get("lnc_default", 1) if logical_cores is None else logical_cores
    if cores not in silicon.get("lnc_sizes", (1,)):
        raise OpenTrnError(
            f"{silicon.title} groups its cores by {' or '.join(map(str, silicon.get('lnc_sizes', (1,))))}, not {cores}"
        )
    return Machine(
        name=unit.name,
        chip=silicon,
        num_chips=count,
        chips_per_node=per_node,
        cores_per_rank=cores,
        spec=str(name),
        collective_runtime=collective_runtime,
    )
