"""Python's collector while an experiment runs: young objects are collected as ever, all objects afterwards.

An experiment is many small objects that live until it has ended, so the collector comes to look at everything that the
process holds, models and imports included: a quarter of a second, in the middle of a sweep of two seconds.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NEVER = 1 << 30
_guard = threading.Lock()
_open = 0
_before = gc.get_threshold()


@contextmanager
def young_only() -> Iterator[None]:
    """Meanwhile only young objects are collected, in all threads; then the thresholds are what they were."""
    global _open, _before
    with _guard:
        if not _open:
            _before = gc.get_threshold()
            gc.set_threshold(_before[0], _before[1], NEVER)
        _open += 1
    try:
        yield
    finally:
        with _guard:
            _open -= 1
            if not _open:
                gc.set_threshold(*_before)
