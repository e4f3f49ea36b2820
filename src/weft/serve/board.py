"""What jobs are doing right now, for those who watch: in memory, lost with the process, rebuilt from the table.

board.post("3f2a", state="running", fraction=0.5, stage="layer 6")
async for news in board.watch("3f2a", first): ...
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from weft.serve.jobs import FINAL

KEPT = 10_000
"""Jobs remembered; the table knows the others."""

QUIET_SECONDS = 15.0
"""After so long without news a sign of life is sent, so that nothing on the way closes the connection."""


@dataclass(frozen=True)
class News:
    """A job's state, how far it is (0 to 1), what it is doing, and how it ended."""

    state: str
    fraction: float = 0.0
    stage: str = ""
    error: dict[str, Any] | None = None
    record: str | None = None


class Board:
    def __init__(self) -> None:
        self._news: OrderedDict[str, News] = OrderedDict()
        self._changed: dict[str, asyncio.Event] = {}
        self._rows: dict[str, list[list[float | None]]] = {}

    def post(self, job: str, **changes: Any) -> None:
        """Change what is known of a job and wake those who watch it."""
        self._news[job] = replace(self._news.get(job, News("queued")), **changes)
        self._news.move_to_end(job)
        while len(self._news) > KEPT:
            forgotten, _ = self._news.popitem(last=False)
            self._rows.pop(forgotten, None)
        if job in self._changed:
            self._changed.pop(job).set()

    def add(self, job: str, rows: list[list[float | None]]) -> None:
        """Rows of a loop's history, before the post that tells of them; a loop that began again repeats some."""
        known = self._rows.setdefault(job, [])
        last = known[-1][0] if known else None
        known += [row for row in rows if last is None or row[0] is None or row[0] > last]

    def rows(self, job: str, since: int) -> list[list[float | None]]:
        """The rows of a loop's history so far, after the first `since`."""
        return self._rows.get(job, [])[since:]

    def get(self, job: str) -> News | None:
        return self._news.get(job)

    async def watch(self, job: str, first: News) -> AsyncIterator[News | None]:
        """What is known now, then every change until the job ends; None as a sign of life in between.

        A slow watcher misses steps, never the last one. `first` stands for a job that the board has forgotten.
        """
        seen: News | None = None
        while seen is None or seen.state not in FINAL:
            now = self._news.get(job, first)
            if now != seen:
                seen = now
                yield now
                continue
            changed = self._changed.setdefault(job, asyncio.Event())
            try:
                await asyncio.wait_for(changed.wait(), QUIET_SECONDS)
            except TimeoutError:
                yield None
