"""A child process's end of the socket to its server: blocking, one message at a time.

    channel = Channel.inherited(fd)
    while (message := channel.receive()) is not None: ...

The end of the stream means that the server is gone; whoever owns a channel then ends too.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from weft.record.messages import Message, encode_message, read_message


@dataclass(frozen=True)
class Channel:
    socket: socket.socket

    @staticmethod
    def inherited(fd: int) -> Channel:
        """The channel over a socket inherited under this number."""
        return Channel(socket.socket(fileno=fd))

    def receive(self) -> Message | None:
        """The next message; None when the other end is gone."""
        return read_message(self._read)

    def send(self, message: Message) -> bool:
        """Send a message; False when the other end is gone."""
        try:
            self.socket.sendall(encode_message(message))
        except OSError:
            return False
        return True

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                part = self.socket.recv(min(size, 1 << 20))
            except OSError:
                part = b""
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
