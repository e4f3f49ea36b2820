"""Values that stay on the server: constants sent once, results used again, and what was kept under a name.

All are known by digest, in a folder for each key and model. A large one comes in parts, and goes on where it stopped.

    missing = await values.missing(scope, digests)               # {digest: bytes already there}
    await values.receive(scope, digest, kind, offset, body)      # until it is whole
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import ClientDisconnect

from weft.errors import FormatError, LimitError, RefusedError, ServiceError
from weft.ir.types import TensorType
from weft.record import tensors
from weft.record.format import RESULT
from weft.record.held import StoredConstant, enter, find
from weft.serve.settings import Settings

LEAST = 1 << 14
"""Bytes of a result that is worth an entry: smaller ones are sent with the program."""
CHUNK = 1 << 22


def scope_of(owner: str | None, model: str) -> str:
    """The name of the folder of one key's values for one model."""
    return hashlib.sha256(f"{owner or ''}\0{model}".encode()).hexdigest()[:32]


@dataclass
class Values:
    """The folders of all keys and models under `root`."""

    root: Path
    settings: Settings
    _next: float = 0.0
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def due(self) -> bool:
        """Whether it is time to look for what has expired: now and then, not with every request."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + min(60.0, self.settings.keep_seconds / 10)
        return True

    def folder(self, scope: str) -> Path:
        return self.root / scope

    def find(self, scope: str, digest: str) -> StoredConstant | None:
        """The value of that digest, its time to live beginning anew."""
        found = find(self.folder(scope), digest)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(self.folder(scope) / f"{digest}.json")
        return found

    def missing(self, scope: str, digests: Iterable[str]) -> dict[str, int]:
        """Those that are not here, with how many bytes of each have come."""
        return {digest: _size(self._part(scope, digest)) for digest in digests if self.find(scope, digest) is None}

    async def receive(
        self, scope: str, digest: str, kind: TensorType, offset: int, body: AsyncIterator[bytes]
    ) -> tuple[int, int]:
        """Take in a part of a value that begins at `offset`: how much of it is here now, and how much came just now.

        What a broken connection leaves half sent stays, and the next part begins there. RefusedError says where.
        """
        if await asyncio.to_thread(self.find, scope, digest) is not None:
            return kind.nbytes, 0
        self._allow(scope, kind)
        async with self._turns[f"{scope}/{digest}"]:
            part = self._part(scope, digest)
            have = _size(part)
            if offset != have:
                raise RefusedError(f"{have:,} bytes of this value are here; go on there", status=409, received=have)
            came = await self._append(part, kind.nbytes - have, body)
            if have + came == kind.nbytes:
                await asyncio.to_thread(self._settle, scope, digest, kind)
            return have + came, came

    def put(self, scope: str, digest: str, kind: TensorType, path: Path) -> None:
        """Take in a file that the worker wrote, which is gone afterwards."""
        folder = self.folder(scope)
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / f"{digest}.bin")
        enter(folder, kind, digest)

    def note_results(self, scope: str, record: Path) -> None:
        """Make the larger results of a record known by their digests."""
        for kind, digest, begin in _results(record):
            if find(self.folder(scope), digest) is None:
                enter(self.folder(scope), kind, digest, record, begin)

    def drop_results(self, scope: str, record: Path) -> None:
        """The results of a record that is about to go are known no longer."""
        for _, digest, _ in _results(record):
            found = find(self.folder(scope), digest)
            if found is not None and os.path.samefile(found.file, record):
                self.drop(scope, digest)

    def drop(self, scope: str, digest: str) -> None:
        """Free a value."""
        for name in (f"{digest}.json", f"{digest}.bin", f"{digest}.part"):
            (self.folder(scope) / name).unlink(missing_ok=True)

    def expire(self, kept: set[tuple[str, str]]) -> None:
        """Free what nobody has used for so long, except what is kept under a name (scope, digest)."""
        before = time.time() - self.settings.keep_seconds
        for entry in self.root.glob("*/*"):
            scope, digest = entry.parent.name, entry.name.partition(".")[0]
            if entry.suffix in (".json", ".part") and (scope, digest) not in kept:
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < before:
                        self.drop(scope, digest)

    def _allow(self, scope: str, kind: TensorType) -> None:
        limit = self.settings.value_bytes
        used = sum(_size(each) for each in self.folder(scope).glob("*.bin"))
        if used + kind.nbytes > limit:
            raise LimitError(
                f"this value of {kind.nbytes:,} bytes comes on top of {used:,} that you have on this server for this "
                f"model; the limit is {limit:,}: free some with model.kept.free(name), or ask for more",
                limit=limit,
                used=used,
            )

    async def _append(self, part: Path, most: int, body: AsyncIterator[bytes]) -> int:
        part.parent.mkdir(parents=True, exist_ok=True)
        came = 0
        try:
            with part.open("ab") as file, contextlib.suppress(ClientDisconnect):
                async for chunk in body:
                    if came + len(chunk) > most:
                        raise FormatError(f"more bytes were sent than this value has: {most:,} were missing")
                    file.write(chunk)
                    came += len(chunk)
        except OSError as error:
            raise ServiceError(
                f"the server could not store this value: {error}; what has come is kept, and the upload goes on from there "
                "when its owner has made room"
            ) from None
        return came

    def _settle(self, scope: str, digest: str, kind: TensorType) -> None:
        """A value that is whole: checked against its digest, on the disk, and known."""
        part, found = self._part(scope, digest), hashlib.sha256(str(kind).encode())
        with part.open("rb") as file:
            while chunk := file.read(CHUNK):
                found.update(chunk)
            os.fsync(file.fileno())
        if found.hexdigest() != digest:
            part.unlink()
            raise FormatError(f"the bytes sent as {digest[:12]}… ({kind}) have another digest; send them again")
        self.put(scope, digest, kind, part)

    def _part(self, scope: str, digest: str) -> Path:
        find(self.folder(scope), digest)  # refuses what is no digest
        return self.folder(scope) / f"{digest}.part"


def _results(record: Path) -> list[tuple[TensorType, str, int]]:
    """The larger results of a record's file: type, digest, and where the bytes begin."""
    with record.open("rb") as file:
        parts = tensors.layout(file)
        place = parts["record"]
        file.seek(place.begin)
        results: dict[str, dict[str, str]] = json.loads(file.read(place.end - place.begin))["results"]
    found = [(parts[RESULT + name], entry["digest"]) for name, entry in results.items()]
    return [(part.type, digest, part.begin) for part, digest in found if part.type.nbytes >= LEAST]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
