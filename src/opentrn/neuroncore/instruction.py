"""How an instruction is declared, once, and how a call of it finds the code that runs it.

An instruction is a class: its operands, the engines that run it, what is legal, what it computes and what it
costs. The decorator :func:`instruction` turns the declaration into the callable that ``nki.isa`` exports. A call looks
up its :class:`Plan` by the layouts of its operands; only the first call with new layouts is checked and specialised, so
that a kernel's hundred-thousandth matmul costs a dictionary look-up.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from opentrn.errors import ValidationError
from opentrn.neuroncore import machine
from opentrn.neuroncore.layout import ELSEWHERE, Layout
from opentrn.neuroncore.memory import MemoryRegion
from opentrn.neuroncore.registers import VirtualRegister
from opentrn.neuroncore.source import caller
from opentrn.neuroncore.tensor import NkiTensor

__all__ = [
    "ANY", "HBM", "ON_CHIP", "PSUM", "SBUF", "SCALAR", "Engine", "In", "Instruction", "Issue", "NkiInstruction", "Out",
    "OutTensors", "Plan", "Scalar", "Static", "Tensors", "Value", "instruction", "instructions",
]  # fmt: skip


class Engine(enum.Enum):
    """The engines of a NeuronCore."""

    unknown = 0
    tensor = 1
    scalar = 2
    gpsimd = 3
    dma = 4
    vector = 5
    sync = 6

    __hash__ = object.__hash__


SBUF = (MemoryRegion.sbuf,)
PSUM = (MemoryRegion.psum,)
ON_CHIP = SBUF + PSUM
HBM = (MemoryRegion.private_hbm, MemoryRegion.shared_hbm)
ANY = ON_CHIP + HBM

_REQUIRED = inspect.Parameter.empty


class _ScalarMark:
    """Stands for a number in place of a layout: plans do not depend on its value."""

    def __repr__(self) -> str:
        return "number"


SCALAR = _ScalarMark()


@dataclass(frozen=True)
class Parameter:
    """One operand of an instruction: which memories may hold it and whether it may be left out."""

    memory: tuple[MemoryRegion, ...] = ANY
    default: Any = _REQUIRED
    indirect: bool = False
    """Whether a view made by ``indirect()`` is accepted (tensor indirection, NeuronCore-v4)."""
    optional: bool = False
    """Whether None is accepted although there is no default."""
    any_start: bool = False
    """Whether it may start at any partition, or at those that the instruction checks itself."""


class Out(Parameter):
    """A tensor that the instruction writes."""


class In(Parameter):
    """A tensor that the instruction reads."""


class Scalar(Parameter):
    """A number, or a tensor that the instruction reads."""


class Tensors(Parameter):
    """A list of tensors that the instruction reads."""


class OutTensors(Tensors):
    """A list of tensors that the instruction writes."""


@dataclass(frozen=True)
class Static(Parameter):
    """A setting that decides what the instruction does: part of the key of its plan."""


@dataclass(frozen=True)
class Value(Parameter):
    """A number that the instruction uses when it runs, for example an offset that changes with every iteration."""


def static(default: Any = _REQUIRED) -> Static:
    """A static setting with a default."""
    return Static((), default)


class Issue:
    """What a declaration's functions see of a call: the layout or setting of each operand, by name.

    Tensors are :class:`Layout` objects, numbers the mark ``SCALAR``, absent operands None. ``core`` is the hardware
    record.
    """

    def __init__(self, instruction: Instruction, core: Any, fields: dict[str, Any]) -> None:
        self.instruction = instruction
        self.core = core
        self.precise = True
        self.fields = fields

    def __getattr__(self, name: str) -> Any:
        try:
            return self.fields[name]
        except KeyError:
            raise AttributeError(name) from None

    def fail(self, message: str) -> ValidationError:
        """A refusal of this call, with the line of the kernel."""
        return ValidationError(f"{self.instruction.name}: {message}", caller())


class Plan:
    """A checked and specialised instruction: everything about a call but its addresses and values.

    Attributes:
        id: index among the plans of a machine; the signature column of a Program.
        engine: engine that runs it.
        writes, reads: positions of tensor operands in the call's arguments. Tensors of a list (:class:`Tensors`) and
            the
            index tensors of dynamic operands follow the declared operands.
        arity: arguments that ``run`` takes.
        layouts: layout of each tensor operand, writes first.
        run: executes on arrays, or on tensors when ``on_tensors``.
        watched: reads, and writes that may leave old contents: what is looked at for memory never written.
        adds: position of the argument that says whether the first output is added to; 0 for none.
    """

    __slots__ = (
        "writes_shared",
        "id",
        "instruction",
        "issue",
        "engine",
        "writes",
        "reads",
        "layouts",
        "run",
        "on_tensors",
        "indirect",
        "flow",
        "place",
        "operands",
        "widen",
        "arity",
        "watched",
        "adds",
    )

    def __init__(self, id: int, issue: Issue, engine: Engine, writes: tuple[int, ...], reads: tuple[int, ...],
                 operands: tuple[int, ...], layouts: tuple[Layout, ...], arity: int) -> None:  # fmt: skip
        declared = issue.instruction
        self.id = id
        self.instruction = declared
        self.issue = issue
        self.engine = engine
        self.writes = writes
        self.reads = reads
        self.operands = operands
        self.layouts = layouts
        self.arity = arity
        self.watched = reads + tuple(p for p in writes if self.operand_name(p) in declared.keeps)
        self.adds = declared.names.index(declared.accumulates) if declared.accumulates else 0
        self.writes_shared = any(layout.region is MemoryRegion.shared_hbm for layout in layouts[: len(writes)])
        self.indirect = any(layout.indirect for layout in layouts)
        self.flow = declared.flow
        self.place = declared.place
        self.run: Callable[..., None] = declared.compute(issue)
        # Operands that the specialisation wants as float32; one that moves bits says ``run.widens = False``.
        widens = declared.widen if getattr(self.run, "widens", True) else ()
        self.widen = tuple(
            p for p in reads if (name := self.operand_name(p)) in widens and issue.fields[name].host != np.float32
        )
        # A specialisation may ask for tensors where the others of its instruction take arrays.
        self.on_tensors = declared.on_tensors or getattr(self.run, "on_tensors", False)

    def operand_name(self, position: int) -> str:
        """Name of the operand at a position of the arguments."""
        names = self.instruction.names
        return names[position] if position < len(names) else self.instruction.list_name

    def with_indices(self, core: Any, args: tuple) -> tuple[Plan, tuple]:
        """This plan and its arguments with the index tensors of dynamic operands as further operands, which it
        reads."""
        indices = []
        for position in self.operands:
            indirection = args[position].indirection
            if indirection is not None and type(indirection.index) is NkiTensor:
                indices.append(indirection.index)
        if not indices:
            return self, args
        layouts = tuple([t.layout for t in indices])
        plan = core.plans.get((self, layouts))
        if plan is None:
            positions = tuple(range(len(args), len(args) + len(indices)))
            plan = Plan.__new__(Plan)
            for name in Plan.__slots__:
                setattr(plan, name, getattr(self, name))
            plan.id = core.next_plan_id()
            plan.reads = self.reads + positions
            plan.operands = self.operands + positions
            plan.layouts = self.layouts + layouts
            core.add_plan(plan)
            core.plans[self, layouts] = plan
        return plan, (*args, *indices)

    def __repr__(self) -> str:
        return f"<Plan {self.instruction.name} on {self.engine.name}: {', '.join(map(repr, self.layouts))}>"


class NkiInstruction(tuple):
    """Handle of an issued instruction, for scheduling dependencies."""

    # A tuple (core, position, loops around it), because one is made at every call and a tuple is the cheapest object.
    __slots__ = ()

    def depends_on(self, *producers: NkiInstruction) -> NkiInstruction:
        """Make this instruction wait until every producer has completed; returns itself.

        Raises:
            ValidationError: a producer is no instruction, runs on another core or later, or is in a device loop that
            this
                instruction is not in.
        """
        core, index, loops = self
        for producer in producers:
            if not isinstance(producer, NkiInstruction):
                raise ValidationError(
                    f"depends_on({producer!r}): a producer is what an instruction of nki.isa returned", caller()
                )
            if producer[0] is not core:
                raise ValidationError("depends_on: the producer runs on another core; use nisa.core_barrier", caller())
            if producer[1] >= index:
                raise ValidationError(
                    "depends_on: the producer is issued after its consumer, which would wait for ever", caller()
                )
            if producer[2] != loops[: len(producer[2])]:
                raise ValidationError(
                    "depends_on: producer and consumer are in different device loops, so the wait would fire at the "
                    "wrong "
                    "time; both must be in one loop, or the producer outside",
                    caller(),
                )
            core.add_dependency(producer[1], index)
        return self


class Instruction:
    """A declared instruction. ``nki.isa`` exports :attr:`call`; docs, legality and timing read the rest."""

    def __init__(self, declaration: type) -> None:
        self.name: str = declaration.__name__
        self.doc: str = inspect.cleandoc(declaration.__doc__ or "")
        self.operands: dict[str, Parameter] = dict(declaration.operands)  # type: ignore[attr-defined]
        self.engines: tuple[Engine, ...] = declaration.engines  # type: ignore[attr-defined]
        self.generations: tuple[int, ...] = getattr(declaration, "generations", (2, 3, 4, 5))
        # "elementwise", "rows", "matmul", "transpose", or flow(plan, args, position, masks) -> mask of what is defined.
        self.flow: Any = getattr(declaration, "flow", "elementwise")
        self.keeps: tuple[str, ...] = getattr(declaration, "keeps", ())
        self.on_tensors: bool = getattr(declaration, "on_tensors", False)
        self.gathers: bool = Engine.dma in self.engines
        self.accumulates: str = getattr(declaration, "accumulates", "")
        self.widen: tuple[str, ...] = getattr(declaration, "widen", ())
        self.follows_undefined: bool = getattr(declaration, "follows_undefined", False)
        self.check: Callable[[Issue], None] = _static(declaration, "check") or (lambda i: None)
        self.compute: Callable[[Issue], Callable[..., None]] = _static(declaration, "compute")
        self.cost: Callable[..., Any] | None = _static(declaration, "cost")
        self.select_engine: Callable[[Issue], Engine] | None = _static(declaration, "select_engine")
        self.place: Callable[..., None] | None = _static(declaration, "place")
        self.normalise: Callable[[dict[str, Any]], None] | None = _static(declaration, "normalise")
        self.kinds = tuple(type(p) for p in self.operands.values())
        self.names = tuple(self.operands)
        self.list_name = next((n for n, p in self.operands.items() if isinstance(p, Tensors)), "")
        self.call = _build_call(self)

    def plan(self, core: machine.Core, args: tuple) -> Plan:
        """Check a call for the first time and specialise it."""
        hardware = core.hardware
        if hardware.generation not in self.generations:
            raise ValidationError(
                f"{self.name} needs {_generation_names(self.generations)}, and this kernel runs on "
                f"{_generation_names((hardware.generation,))}; choose another chip with --chip or another instruction",
                caller(),
            )
        fields: dict[str, Any] = {}
        writes, reads, layouts_w, layouts_r = [], [], [], []
        trailing = len(self.operands)
        for position, (name, parameter) in enumerate(self.operands.items()):
            value = args[position]
            kind = type(parameter)
            if kind is Static:
                fields[name] = value
                continue
            if kind is Value:
                fields[name] = SCALAR if value is not None else None
                continue
            if issubclass(kind, Tensors):
                found = fields[name] = tuple(self._tensor(name, parameter, t, hardware.generation) for t in value)
                into = kind is OutTensors
                (writes if into else reads).extend(range(trailing, trailing + len(found)))
                (layouts_w if into else layouts_r).extend(found)
                trailing += len(found)
                continue
            if value is None and (parameter.default is None or parameter.optional):
                fields[name] = None
                continue
            if kind is Scalar and not isinstance(value, NkiTensor):
                if not isinstance(value, (int, float, VirtualRegister)) and not hasattr(value, "__float__"):
                    raise ValidationError(f"{self.name}: {name} is {value!r}, not a number or a tensor", caller())
                fields[name] = SCALAR
                continue
            layout = fields[name] = self._tensor(name, parameter, value, hardware.generation)
            (writes if kind is Out else reads).append(position)
            (layouts_w if kind is Out else layouts_r).append(layout)
        issue = Issue(self, hardware, fields)
        issue.precise = core.precise
        self.check(issue)
        engine = self._engine(issue)
        if engine not in _MOVERS:
            for name, parameter in self.operands.items():
                if isinstance(fields[name], Layout) and not parameter.any_start:
                    _check_start(issue, name, fields[name])
        plan = Plan(core.next_plan_id(), issue, engine, tuple(writes), tuple(reads), (*writes, *reads),
                    (*layouts_w, *layouts_r), trailing)  # fmt: skip
        core.add_plan(plan)
        return plan

    def _tensor(self, name: str, parameter: Parameter, value: Any, generation: int) -> Layout:
        if not isinstance(value, NkiTensor):
            hint = "allocate it with nl.ndarray" if type(parameter) is Out else "load it into a tensor first"
            raise ValidationError(f"{self.name}: {name} must be a tensor, not {type(value).__name__}; {hint}", caller())
        layout = value.layout
        if layout.indirect == "tensor":
            self._check_indirect(name, parameter)
        if layout.region not in parameter.memory:
            where = " or ".join(r.value for r in parameter.memory if r is not MemoryRegion.private_hbm)
            raise ValidationError(
                f"{self.name}: {name} is in {layout.region.value}, but the instruction reaches only {where}; "
                "copy it there first",
                caller(),
            )
        if layout.indirect == "tensor":
            if generation < 4:
                raise ValidationError(
                    f"{self.name}: {name} uses .indirect(), which needs NeuronCore-v4 or newer; gather with "
                    "nisa.nc_n_gather",
                    caller(),
                )
            if not parameter.indirect:
                raise ValidationError(
                    f"{self.name}: {name} does not take a view made by .indirect(); copy it with nisa.tensor_copy "
                    "first",
                    caller(),
                )
        if layout.indirect == "vector" and not self.gathers:
            raise ValidationError(
                f"{self.name}: {name} is indexed by a vector; only DMA instructions gather rows, copy it with "
                "nisa.dma_copy first",
                caller(),
            )
        if layout.on_chip and layout.ndim > 5:
            raise ValidationError(
                f"{self.name}: {name} has {layout.ndim} dimensions; an access pattern has at most 5", caller()
            )
        return layout

    def _check_indirect(self, name: str, parameter: Parameter) -> None:
        """Refuse a view made by ``indirect()`` where the instruction or the generation has no tensor indirection."""
        generation = machine.current().hardware.generation
        if generation < 4:
            raise ValidationError(
                f"{self.name}: {name} is addressed by indirect(), which needs {_generation_names((4,))} or newer, "
                "and this "
                f"kernel runs on {_generation_names((generation,))}; gather with nisa.nc_n_gather or a DMA instead",
                caller(),
            )
        if not parameter.indirect:
            able = ", ".join(n for n, p in self.operands.items() if p.indirect)
            raise ValidationError(
                f"{self.name}: {name} is addressed by indirect(), which this operand does not take"
                + (f" (only {able} may be)" if able else "") + "; copy it with nisa.tensor_copy first",
                caller(),
            )  # fmt: skip

    def _engine(self, issue: Issue) -> Engine:
        wanted = issue.fields.get("engine", Engine.unknown)
        if self.select_engine is not None:
            chosen = self.select_engine(issue)
        elif wanted is not None and wanted is not Engine.unknown:
            chosen = wanted
        else:
            chosen = self.engines[0]
        if chosen not in self.engines:
            names = ", ".join(e.name for e in self.engines)
            raise issue.fail(f"the {chosen.name} engine does not run this instruction; use {names}")
        if chosen is Engine.scalar:
            for name, parameter in self.operands.items():
                layout = issue.fields[name]
                if (
                    type(parameter) is Out
                    and layout
                    and layout.indirect == "tensor"
                    and layout.region is MemoryRegion.psum
                ):
                    raise issue.fail(
                        f"the Scalar engine cannot scatter into PSUM; put {name} into SBUF or use the Vector engine"
                    )
        return chosen


# They address memory by the byte; the other engines read and write whole quadrants of 32 partitions.
_MOVERS = (Engine.dma, Engine.sync)


def _check_start(issue: Issue, name: str, layout: Layout) -> None:
    """Refuse an operand that starts at a partition where its engine cannot reach so many."""
    if not layout.on_chip or layout.start == 0:
        return
    count = layout.num_partitions
    allowed = "0" if count > 64 else "0 or 64" if count > 32 else "0, 32, 64 or 96"
    if count > 64 or layout.start == ELSEWHERE or (count > 32 and layout.start != 64):
        where = "a partition that is no multiple of 32" if layout.start == ELSEWHERE else f"partition {layout.start}"
        raise issue.fail(
            f"{name} starts at {where}; a view of {count} partitions must start at {allowed}, move it there with "
            "nisa.dma_copy"
        )


def _static(declaration: type, name: str) -> Any:
    return getattr(declaration, name, None)


def _generation_names(generations: tuple[int, ...]) -> str:
    return ", ".join(f"NeuronCore-v{g}" for g in generations)


def _build_call(declared: Instruction) -> Callable[..., Any]:
    """Generate the function that ``nki.isa`` exports: bind arguments, look the plan up, issue it."""
    signature, key = [], []
    env: dict[str, Any] = {
        "_state": machine.state, "_declared": declared, "_T": NkiTensor, "_SCALAR": SCALAR, "_slow": _slow_plan,
        "_Handle": NkiInstruction,
    }  # fmt: skip
    for name, parameter in declared.operands.items():
        kind = type(parameter)
        default = parameter.default
        if default is _REQUIRED:
            signature.append(name)
        else:
            env[f"_d_{name}"] = default
            signature.append(f"{name}=_d_{name}")
        if kind is Static:
            key.append(name)
        elif kind is Value:
            key.append(f"{name} is None")
        elif issubclass(kind, Tensors):
            key.append(f"tuple([t.layout for t in {name}])")
        elif kind is Scalar:
            key.append(f"({name}.layout if type({name}) is _T else None if {name} is None else _SCALAR)")
        elif default is None or parameter.optional:
            key.append(f"(None if {name} is None else {name}.layout)")
        else:
            key.append(f"{name}.layout")
    names = ", ".join(declared.operands)
    pre = f"    {names}, = _normalise(({names},))\n" if declared.normalise is not None else ""
    if declared.normalise is not None:
        env["_normalise"] = declared.normalise
    lists = "".join(f", *{n}" for n, p in declared.operands.items() if isinstance(p, Tensors))
    last = ", name=None"
    if "dst" in declared.operands:
        # A keyword of earlier releases, which kernels still write; the type of dst decides.
        last += ", *, dtype=None"
    source = (
        f"def {declared.name}({', '.join(signature)}{last}):\n"
        f"    core = _state.core\n{pre}"
        f"    args = ({names},)\n"
        f"    try:\n"
        + (f"        args = ({names}{lists})\n" if lists else "")
        + f"        plan = core.plans[_declared, {', '.join(key)}]\n"
        f"    except (KeyError, AttributeError, TypeError):\n"
        f"        core, plan, args = _slow(_declared, ({names},))\n"
        f"    return _Handle((core, core.issue(plan, args, name), core.loops))\n"
    )
    exec(compile(source, f"<opentrn isa {declared.name}>", "exec"), env)  # noqa: S102
    call = env[declared.name]
    call.__doc__ = declared.doc
    call.__module__ = "nki.isa"
    call.instruction = declared
    return call


def _slow_plan(declared: Instruction, args: tuple) -> tuple[machine.Core, Plan, tuple]:
    """The path of a first call: bring the arguments into their standard form, check, specialise and remember."""
    core = machine.current()
    fixed = []
    for (name, parameter), value in zip(declared.operands.items(), args, strict=True):
        fixed.append(_standard(declared, name, parameter, value))
    fixed = tuple(fixed)
    key = plan_key(declared, fixed)
    plan = core.plans.get(key)
    if plan is None:
        plan = declared.plan(core, fixed)
        core.plans[key] = plan
    for kind, value in zip(declared.kinds, fixed[: len(declared.kinds)], strict=True):
        if issubclass(kind, Tensors):
            fixed = (*fixed, *value)
    return core, plan, fixed


def plan_key(declared: Instruction, args: tuple) -> tuple:
    """The key of the plan cache, as the generated calls build it."""
    key: list[Any] = [declared]
    for kind, parameter, value in zip(declared.kinds, declared.operands.values(), args, strict=True):
        if kind is Static:
            key.append(value)
        elif kind is Value:
            key.append(value is None)
        elif issubclass(kind, Tensors):
            key.append(tuple([t.layout for t in value]))
        elif isinstance(value, NkiTensor):
            key.append(value.layout)
        elif value is None and (kind is Scalar or parameter.default is None or parameter.optional):
            key.append(None)
        else:
            key.append(SCALAR)
    return tuple(key)


def _standard(declared: Instruction, name: str, parameter: Parameter, value: Any) -> Any:
    """Lists in settings become tuples; settings that cannot be part of a key are refused."""
    if type(parameter) is Static:
        value = _frozen(value)
        try:
            hash(value)
        except TypeError:
            raise ValidationError(
                f"{declared.name}: {name}={value!r} is not a compile-time constant", caller()
            ) from None
        return value
    if isinstance(parameter, Tensors):
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(v) for v in value)
    return value


_DECLARED: dict[str, Instruction] = {}


def instruction(declaration: type) -> Callable[..., Any]:
    """Class decorator: declare an instruction and return the callable that issues it."""
    declared = Instruction(declaration)
    _DECLARED[declared.name] = declared
    return declared.call


def instructions() -> dict[str, Instruction]:
    """Every declared instruction, by name."""
    from opentrn.neuroncore import isa  # noqa: F401  (declares them)

    return dict(_DECLARED)
