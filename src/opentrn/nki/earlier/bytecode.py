"""Where the result of a call goes: straight into an assignment, or into a variable first.

``out[...] = nl.exp(x)`` may compute in place of ``out``; ``y = nl.exp(x); out[...] = y`` must not, for ``y`` keeps its
values whatever happens to ``out`` later. Python does not tell the callee, but the caller's bytecode does.
"""

from __future__ import annotations

import bisect
import dis
from types import CodeType, FrameType
from typing import Any

from opentrn.neuroncore.source import Site

__all__ = ["goes_straight", "joining_word", "result_site", "stored_in"]

_listings: dict[CodeType, tuple[list[int], list[dis.Instruction]]] = {}
_straight: dict[tuple[CodeType, int, int], bool] = {}
_BREAKS = (
    "STORE_",
    "POP_TOP",
    "RETURN",
    "JUMP",
    "POP_JUMP",
    "COPY",
    "YIELD",
    "LIST_APPEND",
    "MAP_ADD",
    "SET_ADD",
    "BUILD_LIST",
    "BUILD_MAP",
    "FOR_ITER",
    "DELETE",
)


def _listing(code: CodeType) -> tuple[list[int], list[dis.Instruction]]:
    """(offsets, instructions) without the filler."""
    found = _listings.get(code)
    if found is None:
        instructions = [
            i
            for i in dis.get_instructions(code)
            if i.opname not in ("CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "TO_BOOL")
        ]
        found = _listings[code] = ([i.offset for i in instructions], instructions)
    return found


def _position(code: CodeType, offset: int) -> int:
    """The instruction at an offset, which may point into the caches that follow it."""
    return max(bisect.bisect_right(_listing(code)[0], offset) - 1, 0)


def _next(code: CodeType, offset: int) -> dis.Instruction | None:
    instructions = _listing(code)[1]
    at = _position(code, offset)
    return instructions[at + 1] if at + 1 < len(instructions) else None


_returned: dict[Site, bool] = {}


def result_site(frame: FrameType) -> Site:
    """The call whose value the result is: one frame up for every ``return f(x)``."""
    while True:
        site = (frame.f_code, frame.f_lasti)
        returned = _returned.get(site)
        if returned is None:
            follows = _next(*site)
            returned = _returned[site] = follows is not None and follows.opname == "RETURN_VALUE"
        if not returned or frame.f_back is None:
            return site
        frame = frame.f_back


def goes_straight(site: Site, frame: FrameType | None) -> bool:
    """Whether the value of the call at ``site`` is on the stack only, at the operation ``frame`` is in."""
    if frame is None or frame.f_code is not site[0]:
        return False
    key = (*site, frame.f_lasti)
    known = _straight.get(key)
    if known is None:
        instructions = _listing(site[0])[1]
        first, last = _position(*site), _position(site[0], frame.f_lasti)
        between = instructions[first + 1 : last]
        known = _straight[key] = first < last and not any(i.opname.startswith(_BREAKS) for i in between)
    return known


def stored_in(frame: FrameType) -> Any:
    """The value that the variable which receives the result of the running call has now, or None."""
    follows = _next(frame.f_code, frame.f_lasti)
    if follows is None or follows.opname not in ("STORE_FAST", "STORE_NAME", "STORE_DEREF", "STORE_GLOBAL"):
        return None
    return frame.f_locals.get(follows.argval)


def joining_word(code: CodeType, offset: int) -> str | None:
    """``and`` or ``or`` when the truth test at this position of the bytecode is one of them, not an ``if``."""
    instructions = _listing(code)[1]
    at = _position(code, offset)
    name = instructions[at].opname
    if not name.endswith("_OR_POP") and not name.startswith("POP_JUMP") and at + 1 < len(instructions):
        at += 1  # Python 3.13 tests with an instruction of its own, which the listing leaves out
        name = instructions[at].opname
    before = instructions[at - 1].opname if at else ""
    if name.endswith("_OR_POP") or (name.startswith("POP_JUMP") and before == "COPY"):
        return "and" if "FALSE" in name else "or"
    return None
