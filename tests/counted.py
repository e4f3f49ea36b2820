"""How much Python runs, in lines: the same on every machine, where a clock is not.

with at_most(lines=100_000):                           # AssertionError at the first line beyond, so nothing hangs
    check(experiment, card)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def at_most(lines: int) -> Iterator[None]:
    """Stop what runs inside when it has taken more than `lines` lines of Python."""
    taken, before = 0, sys.gettrace()

    def count(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal taken
        taken += event == "line"
        assert taken <= lines, f"more than {lines:,} lines of Python"
        return count

    sys.settrace(count)
    try:
        yield
    finally:
        sys.settrace(before)
