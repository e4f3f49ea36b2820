"""Where files stay: posted experiments while they wait, and records for good.

    store = FolderStore(Path("~/.weft/store"))
    store.put("records/ab12.safetensors", Path("new.safetensors"))
    store.open("records/ab12.safetensors")

Keys are made by the server, of hashes and ids: nothing a user names becomes part of a path.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


class Store(Protocol):
    """Files by key. An object store by URL will have the same verbs."""

    def put(self, key: str, path: Path) -> None:
        """Take the finished file at `path`, which is gone afterwards; durable once this returns."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Read a file, seekable; FileNotFoundError if there is none."""
        ...

    def local(self, key: str) -> Path:
        """A file on this machine with that content, for a worker to read."""
        ...

    def has(self, key: str) -> bool: ...

    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class FolderStore:
    """A folder on this machine."""

    root: Path

    def put(self, key: str, path: Path) -> None:
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(path)
        os.replace(path, target)
        _sync(target.parent)

    def open(self, key: str) -> BinaryIO:
        return (self.root / key).open("rb")

    def has(self, key: str) -> bool:
        return (self.root / key).is_file()

    def delete(self, key: str) -> None:
        (self.root / key).unlink(missing_ok=True)

    def local(self, key: str) -> Path:
        return self.root / key


def _sync(path: Path) -> None:
    """Wait until the file, or a folder's list of names, is on the disk: a rename alone does not survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
