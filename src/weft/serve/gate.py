"""The server's end of the checker: one check at a time, each with a bound on its time and memory."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from weft.errors import LimitError, from_data
from weft.record.messages import Check, Checked, Failed
from weft.serve.child import Child
from weft.serve.settings import Settings


@dataclass
class Gate:
    """`checked = await gate.check(path, card_path, locations, values)`; what is illegal is raised as its own error."""

    settings: Settings
    _child: Child | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> None:
        """Start the checker ahead of the first experiment."""
        async with self._turn:
            await self._living()

    async def check(self, path: Path, card: Path, locations: int, values: Path) -> Checked:
        message = Check(path.name, str(path), str(card), locations, str(values))
        async with self._turn:
            # A checker that ended after an earlier, large file is no reason to refuse this one: hence two tries.
            for _ in range(2):
                answer = await self._ask(message)
                if isinstance(answer, Checked):
                    return answer
                if isinstance(answer, Failed):
                    raise from_data(answer.error)
        raise LimitError(
            f"checking this experiment takes more memory than {self.settings.check_bytes:,} bytes; split it up",
            limit=self.settings.check_bytes,
        )

    async def close(self) -> None:
        if self._child is not None:
            await self._child.end()

    async def _ask(self, message: Check) -> object:
        child = await self._living()
        try:
            async with asyncio.timeout(self.settings.check_seconds):
                answer = await child.receive() if await child.send(message) else None
        except BaseException as error:
            # An answer that comes after its question was given up would be taken for the next one's.
            self._child = None
            await child.end()
            if not isinstance(error, TimeoutError):
                raise
            seconds = self.settings.check_seconds
            raise LimitError(
                f"checking this experiment takes more than {seconds:g} s; split it up", limit=seconds
            ) from None
        if answer is None:
            self._child = None
            await child.end()
        return answer

    async def _living(self) -> Child:
        if self._child is None or self._child.process.returncode is not None:
            limits = json.dumps(asdict(self.settings.limits))
            memory = str(self.settings.check_bytes)
            self._child = await Child.spawn("weft.serve.checker", "--limits", limits, "--memory", memory)
        return self._child
