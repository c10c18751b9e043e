"""Which line of the user's program is running: the place every error, profile row and advice names."""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType

__all__ = ["Site", "Source", "caller", "is_ours", "line_of", "user_frame"]

Source = tuple[str, int]
"""File and line."""

Site = tuple[CodeType, int]
"""A code object and a position in its bytecode: what is cheap to keep; :func:`line_of` turns it into a Source."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Kernels that ship with the package are user code: their lines are what a profile should name.
_USER_ROOMS = tuple(_PACKAGE + room + os.sep for room in ("kernels",))
_OURS: dict[int, tuple[bool, CodeType]] = {}  # by identity, as hashing a code object is slow; the value keeps it alive


def is_ours(code: CodeType) -> bool:
    """Whether ``code`` belongs to OpenTrn rather than to the user's program."""
    known = _OURS.get(id(code))
    if known is None:
        name = code.co_filename
        generated = name.startswith("<opentrn")
        ours = generated or (name.startswith(_PACKAGE) and not name.startswith(_USER_ROOMS))
        known = _OURS[id(code)] = (ours, code)
    return known[0]


def user_frame(depth: int = 1) -> FrameType | None:
    """The innermost frame that is not OpenTrn's own, starting ``depth`` frames up."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and is_ours(frame.f_code):
        frame = frame.f_back
    return frame


pinned: Site | None = None
"""Where the call was made that is being carried out now, when that is not where the program is: see :func:`caller`."""


def caller() -> Source | None:
    """File and line of the user's code that is running now (or that asked for what is running, if that was earlier)."""
    if pinned is not None:
        return line_of(pinned)
    frame = user_frame(2)
    if frame is None:
        return None
    return frame.f_code.co_filename, frame.f_lineno


def line_of(site: Site | None) -> Source | None:
    """File and line of a site."""
    if site is None:
        return None
    code, position = site
    if position < 0:
        return code.co_filename, code.co_firstlineno
    for start, end, line in code.co_lines():
        if start <= position < end and line is not None:
            return code.co_filename, line
    return code.co_filename, code.co_firstlineno
