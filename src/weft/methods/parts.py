"""Long work in parts, each a session of its own: progress is shown, and Ctrl-C between parts keeps what there is.

with Parts("patching", parts) as work:
    for part in work:
        ...
work.stopped                                            # "" or "after 3 of 5 parts"
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any


class Parts:
    """Goes through `parts`. The first Ctrl-C ends it after the part it is in; a second interrupts as ever."""

    def __init__(self, what: str, parts: Sequence[Any], progress: bool = True) -> None:
        self.what, self.parts, self.progress = what, parts, progress
        self.stopped = ""
        self._asked = False

    def __iter__(self) -> Iterator[Any]:
        for number, part in enumerate(self.parts):
            if self._asked and number:
                self.stopped = f"after {number} of {len(self.parts)} parts of {self.what}"
                return
            yield part
            if self._bar is not None:
                self._bar.advance(self._task)

    def __enter__(self) -> Parts:
        self._bar: Any = None
        if self.progress and len(self.parts) > 1 and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            self._bar = Progress(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.what, total=len(self.parts))
            self._bar.start()
        self._before: Any = None
        if len(self.parts) > 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def __exit__(self, *error: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if self._bar is not None:
            self._bar.stop()


def split(count: int, size: int) -> list[range]:
    """0 to `count` in ranges of `size` (at least 1)."""
    size = max(1, size)
    return [range(at, min(at + size, count)) for at in range(0, count, size)]
