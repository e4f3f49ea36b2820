"""From a posted body to an accepted job: received within bounds, checked, and durable before it is answered."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import ClientDisconnect

from weft.errors import FormatError, LimitError
from weft.record.messages import Checked
from weft.serve.gate import Gate
from weft.serve.host import Host, Shared
from weft.serve.jobs import JobRow
from weft.serve.values import scope_of

DRAIN_SECONDS = 0.5


@dataclass
class Desk:
    """`job, new = await desk.accept(host, request.stream(), …)`"""

    shared: Shared
    gate: Gate
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def accept(
        self, host: Host, body: AsyncIterator[bytes], *, plan: str, locations: int, fresh: bool, owner: str | None
    ) -> tuple[JobRow, bool]:
        """The job for this body, and whether it is a new one; a body that is illegal is raised as its own error."""
        assert host.card_file is not None
        name = secrets.token_hex(12)
        path = self.shared.settings.folder / "spool" / f"{name}.posted"
        try:
            size = await receive(body, path, self.shared.settings.body_bytes)
            self.shared.metrics.received.labels("experiments").inc(size)
            scope = scope_of(owner, host.spec.name)
            checked = await self.gate.check(path, host.card_file, locations, self.shared.values.folder(scope))
            job = JobRow(
                name, host.spec.name, host.key, checked.hash, plan, locations, submitted=time.time(), owner=owner
            )
            lost = await asyncio.to_thread(self._lost, scope, checked)
            return await self._enter(job, path, fresh or lost)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _lost(self, scope: str, checked: Checked) -> bool:
        """Whether something that this experiment keeps is not kept now: then no record of it will do."""
        there = {row.name: row.experiment for row in self.shared.keeping.all(scope)} if checked.kept else {}
        return any(there.get(name) != checked.hash for name in checked.kept)

    async def _enter(self, job: JobRow, path: Path, fresh: bool) -> tuple[JobRow, bool]:
        shared = self.shared
        async with self._turn:  # two equal experiments posted at once become one job
            found = (
                None if fresh else await asyncio.to_thread(shared.jobs.same, job.experiment, job.model_key, job.plan)
            )
            if found is not None and (
                found.state != "done" or await asyncio.to_thread(shared.store.has, found.record_file)
            ):
                shared.metrics.answered.labels(job.model).inc()
                return found, False
            await asyncio.to_thread(shared.store.put, job.body, path)
            await asyncio.to_thread(shared.jobs.add, job)
        shared.metrics.submitted.labels(job.model).inc()
        shared.board.post(job.id, state="queued")
        return job, True


async def receive(body: AsyncIterator[bytes], path: Path, limit: int) -> int:
    """Write a body to a file as it comes, and give its size; LimitError as soon as it is larger than `limit`."""
    size = 0
    try:
        with path.open("wb") as file:
            async for chunk in body:
                size += len(chunk)
                if size > limit:
                    await _drain(body)
                    raise too_large(size, limit)
                file.write(chunk)
    except ClientDisconnect:
        raise FormatError(f"the connection ended after {size:,} bytes of the experiment; send it again") from None
    return size


def too_large(size: int, limit: int) -> LimitError:
    return LimitError(
        f"the experiment has at least {size:,} bytes and this server takes at most {limit:,}; "
        "send fewer or smaller constants, or ask the server's owner for a higher limit",
        limit=limit,
        size=size,
    )


async def _drain(body: AsyncIterator[bytes]) -> None:
    """Take a little more of what is being sent, so that the refusal is read and not lost in a reset connection."""
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in body:
                pass
    except TimeoutError:
        pass
