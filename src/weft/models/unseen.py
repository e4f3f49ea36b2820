"""Whether this thread's hooks look away: what is computed only to be looked at is no part of the pass."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Local(threading.local):
    unseen = 0


LOCAL = _Local()


@contextmanager
def unseen() -> Iterator[None]:
    """Meanwhile hooks of this thread look away: a tap may apply a part of the very model whose pass it is in."""
    LOCAL.unseen += 1
    try:
        yield
    finally:
        LOCAL.unseen -= 1
