"""Whose line is this? Finds the user's own line behind a traced operation, cheaply.

Taking a location must cost well under a microsecond, so only the code object and the instruction's offset are kept;
file, line and source text are worked out when an error or a listing asks for them.
"""

from __future__ import annotations

import linecache
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import CodeType
from typing import NamedTuple, overload

from weft.errors import Location

_PACKAGE = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple({sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), sysconfig.get_path("stdlib")})
_internal: dict[CodeType, bool] = {}


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


def is_internal(code: CodeType) -> bool:
    """Whether `code` belongs to weft itself, to Python or to an installed library (answers are remembered)."""
    known = _internal.get(code)
    if known is None:
        name = code.co_filename
        known = name.startswith((_PACKAGE, *_LIBRARIES)) or name.startswith("<frozen")
        _internal[code] = known
    return known


def here() -> Place | None:
    """The innermost frame on the stack that is the user's own (None if there is none)."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not (_internal[code] if code in _internal else is_internal(code)):
            return Place(code, frame.f_lasti)
        frame = frame.f_back
    return None


def where() -> Location | None:
    """The user's line, resolved now: for errors raised at once."""
    place = here()
    return place.resolve() if place else None
