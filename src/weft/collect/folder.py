"""A collection's folder: what it holds, which shards are whole, and how one is written so that a kill loses only it.

    folder ::= collection.json  what was asked, of which model
               shards.jsonl     a line for each whole shard, and a last one when all are there
               000000.safetensors …
    shard  ::= "prompt", "length" int64 [prompts]   "position", "token" int64 [rows]   a tensor [rows, …] for each site

A shard is written beside its name, flushed to the disk, renamed, and only then entered. What a kill leaves half written
is written anew; what a shard holds is settled before, so the bytes come out the same.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from weft.errors import FormatError, RefusedError
from weft.ir import container
from weft.ir.types import TensorType

ABOUT, SHARDS, LOCK, PART = "collection.json", "shards.jsonl", ".lock", ".part"


@dataclass
class Folder:
    """The folder of one collection; `entries` are the lines of its whole shards, in order."""

    path: Path
    about: dict[str, Any]
    entries: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    def enter(self, entry: dict[str, Any]) -> None:
        """A line for the index, on the disk before this returns."""
        with (self.path / SHARDS).open("ab") as file:
            file.write(json.dumps(entry, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if "complete" in entry:
            self.complete = True
        else:
            self.entries.append(entry)


def read_folder(path: Path) -> Folder:
    """The folder of a collection, whole or not; FormatError if it is none."""
    try:
        about = json.loads((path / ABOUT).read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is no collection: {error}; model.collect(…, to=FOLDER) makes one") from None
    if about.get("format") != 1:
        raise FormatError(f"{path} is a collection of format {about.get('format')!r}; this weft reads format 1")
    entries = _entries(path / SHARDS)
    complete = bool(entries) and "complete" in entries[-1]
    return Folder(path, about, [each for each in entries if "complete" not in each], complete)


@contextmanager
def writing(path: Path, about: Mapping[str, Any]) -> Iterator[Folder]:
    """The folder, for this process alone, made if it is not there; RefusedError if it holds anything else than `about`."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                f"another process is collecting into {path}; wait for it, or give another folder"
            ) from None
        yield _opened(path, dict(about))


def _opened(path: Path, about: dict[str, Any]) -> Folder:
    given = json.loads(json.dumps(about))
    if not (path / ABOUT).exists():
        others = sorted(each.name for each in path.iterdir() if each.name not in (LOCK, ABOUT + PART))
        if others:
            raise RefusedError(
                f"{path} holds other things ({', '.join(others[:4])}); give a folder that is new or empty"
            )
        _settle(path / (ABOUT + PART), json.dumps(given, sort_keys=True, indent=1).encode(), path / ABOUT)
    folder = read_folder(path)
    differ = [name for name in {**given, **folder.about} if given.get(name) != folder.about.get(name)]
    if differ:
        told = "; ".join(
            f"{name}: there {_short(folder.about.get(name))}, here {_short(given.get(name))}" for name in differ
        )
        raise RefusedError(
            f"{path} holds another collection ({told}); give another folder, or the same arguments again"
        )
    for left in path.glob(f"*{PART}"):
        left.unlink()
    _without_torn_line(path / SHARDS)
    return folder


@dataclass
class ShardFile:
    """One shard while it is written: `put("resid_post[3]", first_row, tensor)`, and at the end `finish()`."""

    target: Path
    types: Mapping[str, TensorType]

    def __post_init__(self) -> None:
        head, order = container.header(self.types)
        self.begin: dict[str, int] = {}
        at = len(head)
        for name in order:
            self.begin[name] = at
            at += self.types[name].nbytes
        self.size = at
        self.path = self.target.with_name(self.target.name + PART)
        self.file: BinaryIO = self.path.open("wb")
        self.file.write(head)

    def put(self, name: str, row: int, rows: torch.Tensor) -> int:
        """Write rows of a tensor from row number `row` on; the number of the row after them."""
        kind = self.types[name]
        width = kind.nbytes // kind.shape[0] if kind.shape[0] else 0
        plain = rows.detach().cpu().contiguous()
        if plain.numel():
            self.file.seek(self.begin[name] + row * width)
            self.file.write(plain.reshape(-1).view(torch.uint8).numpy().data)
        return row + int(plain.shape[0])

    def finish(self) -> None:
        """Flush the shard to the disk and give it its name."""
        self.file.flush()
        if os.fstat(self.file.fileno()).st_size != self.size:
            raise OSError(errno.EIO, "a shard came out shorter than it should", str(self.path))
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.path, self.target)
        _sync(self.target.parent)

    def drop(self) -> None:
        """Leave nothing of a shard that is not whole."""
        with contextlib.suppress(OSError):  # what could not be written is not wanted either
            self.file.close()
        self.path.unlink(missing_ok=True)


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise FormatError(f"{path} is damaged: {error}") from None


def _without_torn_line(path: Path) -> None:
    """A line that a kill left half written is taken away, or the next would be joined to it."""
    if path.exists():
        data = path.read_bytes()
        whole = len(data.rpartition(b"\n")[0]) + (b"\n" in data)
        if whole != len(data):
            os.truncate(path, whole)


def _settle(temporary: Path, data: bytes, target: Path) -> None:
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"
