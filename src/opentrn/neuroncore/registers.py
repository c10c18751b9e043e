"""Virtual registers: the scalars that a kernel computes with at run time, for loop bounds and addresses."""

from __future__ import annotations

from typing import Any

__all__ = ["VirtualRegister"]


class VirtualRegister:
    """A 32-bit integer register of an engine's sequencer.

    Allocated with ``nisa.register_alloc``; moved, loaded and stored with ``nisa.register_move``, ``register_load`` and
    ``register_store``. Usable as a loop bound, a ``while`` condition and a dynamic offset.
    """

    __slots__ = ("state", "frozen")

    def __init__(self, state: int | None = None, frozen: bool = False) -> None:
        self.state = state
        self.frozen = frozen

    def read(self) -> int:
        """The value; raises if nothing was ever put into the register."""
        if self.state is None:
            from opentrn.errors import UninitializedError
            from opentrn.neuroncore.source import caller

            raise UninitializedError("a register is read before anything was written to it; "
                                     "use register_alloc(value), register_move or register_load first", caller())  # fmt: skip
        return self.state

    def write(self, value: Any) -> None:
        """Set the register to a 32-bit two's-complement integer."""
        if self.frozen:
            from opentrn.errors import ValidationError
            from opentrn.neuroncore.source import caller

            raise ValidationError("a loop's induction register is read-only inside the loop", caller())
        wrapped = int(value) & 0xFFFFFFFF
        self.state = wrapped - (1 << 32) if wrapped >= 1 << 31 else wrapped

    def __bool__(self) -> bool:
        return self.read() != 0

    def __int__(self) -> int:
        return self.read()

    def __index__(self) -> int:
        return self.read()

    def __repr__(self) -> str:
        return f"VirtualRegister({self.state})"
