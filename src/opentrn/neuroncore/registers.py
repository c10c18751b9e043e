"""Virtual registers: the scalars that a kernel computes with at run time, for loop bounds and addresses."""

from __future__ import annotations

from typing import Any

from opentrn.errors import UninitializedError, ValidationError
from opentrn.neuroncore.source import caller

__all__ = ["VirtualRegister"]


class VirtualRegister:
    """A 32-bit integer register of an engine's sequencer.

    Allocated with ``nisa.register_alloc``; moved, loaded and stored with ``nisa.register_move``, ``register_load`` and
    ``register_store``. Usable as a loop bound, a ``while`` condition and a dynamic offset.

    Attributes:
        state: the value, None while it has none.
        frozen: whether writing is refused (the induction register of a loop).
        origin: what the value was loaded from, for messages.
        producer: (core, index of the instruction) of the load it comes from, None for constants.
    """

    __slots__ = ("state", "frozen", "origin", "producer")

    def __init__(self, state: int | None = None, frozen: bool = False) -> None:
        self.state = state
        self.frozen = frozen
        self.origin: str | None = None
        self.producer: tuple[Any, int] | None = None

    def read(self) -> int:
        """The value.

        Raises:
            UninitializedError: nothing was ever put into the register.
            ValidationError: it was loaded in a launch that computes no values.
        """
        if self.state is None:
            if self.origin is not None:
                raise ValidationError(
                    f"a loop or an address depends on the value of a register that comes from {self.origin}, and "
                    "this run "
                    "computes no values; run it with values, or say what to assume: "
                    "opentrn.nki.launch.session(assume=...)",
                    caller(),
                )
            raise UninitializedError(
                "a register is read before anything was written to it; use register_alloc(value), register_move or "
                "register_load first",
                caller(),
            )
        return self.state

    def write(self, value: Any) -> None:
        """Set the register to a 32-bit two's-complement integer."""
        self._check_writable()
        wrapped = int(value) & 0xFFFFFFFF
        self.state = wrapped - (1 << 32) if wrapped >= 1 << 31 else wrapped

    def copy(self, other: VirtualRegister) -> None:
        """Take over the value of another register and where it came from; an unset register is refused."""
        self._check_writable()
        if other.state is None and other.origin is None:
            other.read()
        self.state, self.origin, self.producer = other.state, other.origin, other.producer

    def load(self, core: Any, index: int, origin: str) -> None:
        """Become the result of instruction ``index`` of ``core``; the value follows when it runs, if it does."""
        self._check_writable()
        self.producer = (core, index)
        self.origin = origin
        self.state = core.assumed(origin) if not core.execute else None

    def _check_writable(self) -> None:
        if self.frozen:
            raise ValidationError("a loop's induction register is read-only inside the loop", caller())

    def __bool__(self) -> bool:
        return self.read() != 0

    def __int__(self) -> int:
        return self.read()

    def __index__(self) -> int:
        return self.read()

    def __repr__(self) -> str:
        return f"VirtualRegister({self.state})"
