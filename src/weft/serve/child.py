"""A child process of the server and the socket to it, for the event loop.

child = await Child.spawn("weft.worker", "--source", "gpt2")
await child.send(RunJob(...)); message = await child.receive()      # None: the process is gone
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass

from weft.errors import FormatError
from weft.record.messages import PREFIX, Message, decode_message, encode_message, frame_lengths


@dataclass(frozen=True)
class Child:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @staticmethod
    async def spawn(module: str, *arguments: str) -> Child:
        """Start `python -m module --fd N …` with one end of a new socket pair as its file N."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", module, "--fd", str(theirs.fileno()), *arguments,
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        return Child(process, reader, writer)

    async def send(self, message: Message) -> bool:
        """Send a message; False when the process is gone."""
        try:
            self.writer.write(encode_message(message))
            await self.writer.drain()
        except OSError:
            return False
        return True

    async def receive(self) -> Message | None:
        """The next message; None when the process is gone, or says what is no message."""
        try:
            header, payload = frame_lengths(await self.reader.readexactly(PREFIX.size))
            return decode_message(await self.reader.readexactly(header), await self.reader.readexactly(payload))
        except (asyncio.IncompleteReadError, OSError, FormatError):
            return None

    def kill(self) -> None:
        """End the process at once, if it still runs.

        Not by `process.kill()`, which looks first whether the process has ended: it would take the exit status of one that
        has, and asyncio, finding none, would say 255.
        """
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    async def end(self) -> int:
        """Kill the process if it still runs, wait for it, and give its exit status."""
        self.kill()
        self.writer.close()
        return await self.process.wait()
