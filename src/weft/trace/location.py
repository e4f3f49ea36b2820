"""Whose line is this? Finds the user's own line behind a traced operation, cheaply.

Taking a location must cost well under a microsecond, so only the code object and the instruction's offset are kept;
file, line and source text are worked out when an error or a listing asks for them.
"""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import NamedTuple, overload

import torch

from weft.errors import Location

_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep
_OURS = (_PACKAGE, os.path.dirname(torch.__file__) + os.sep)
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib", "stdlib")})
_NOBODYS = ("<frozen ", "<__array_function__")


class _Internal(dict[str, bool]):
    """Whether a file's code is internal, by its name (a code object itself is slow to hash)."""

    def __missing__(self, file: str) -> bool:
        found = self[file] = file.startswith((_PACKAGE, *_LIBRARIES, *_NOBODYS))
        return found


_internal = _Internal()


class _Call(threading.local):
    """`held`: None, or while a call of the user's is taken apart a list for its place, once somebody has asked for it."""

    held: list[Place | None] | None = None


call = _Call()
"""The call under way in this thread: all its nodes have one place, and the way up the stack is taken once."""


class Place(NamedTuple):
    """A code object and an instruction in it; `resolve` gives the line."""

    code: CodeType
    instruction: int

    def resolve(self) -> Location:
        line = next(
            (row for start, end, row in self.code.co_lines() if start <= self.instruction < end and row is not None),
            self.code.co_firstlineno,
        )
        name = self.code.co_filename
        return Location(name, line, linecache.getline(name, line).strip())


class Lines(Sequence[Location | None]):
    """The places of a program's nodes as lines, each worked out when it is asked for."""

    def __init__(self, places: tuple[Place | None, ...]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Location | None: ...
    @overload
    def __getitem__(self, index: slice) -> Lines: ...
    def __getitem__(self, index: int | slice) -> Location | Lines | None:
        if isinstance(index, slice):
            return Lines(self._places[index])
        place = self._places[index]
        return place.resolve() if place else None


def here() -> Place | None:
    """The innermost frame on the stack that is the user's own (None if there is none).

    Where all the code is installed in libraries, it is the innermost that is neither weft's nor torch's.
    """
    held = call.held
    if held is None:
        return _innermost()
    if not held:
        held.append(_innermost())
    return held[0]


def _innermost() -> Place | None:
    internal, frame = _internal, sys._getframe(2)
    while frame is not None and internal[frame.f_code.co_filename]:
        frame = frame.f_back
    if frame is not None:
        return Place(frame.f_code, frame.f_lasti)
    frame = sys._getframe(2)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_OURS):
            return Place(frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return None


def where() -> Location | None:
    """The user's line, resolved now: for errors raised at once."""
    place = here()
    return place.resolve() if place else None
