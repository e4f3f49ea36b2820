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

    def post(self, job: str, **changes: Any) -> None:
        """Change what is known of a job and wake those who watch it."""
        self._news[job] = replace(self._news.get(job, News("queued")), **changes)
        self._news.move_to_end(job)
        while len(self._news) > KEPT:
            self._news.popitem(last=False)
        if job in self._changed:
            self._changed.pop(job).set()

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
