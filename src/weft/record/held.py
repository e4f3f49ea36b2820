"""Constants that a server holds by their digest, so that they need not be sent with each experiment.

    folder ::= DIGEST.json  where a value lies: {"dtype", "shape", "file", "begin"}     DIGEST.bin  its bytes, where they
               lie by themselves (a value that is a result lies in its record)

    experiment = read_body(body, locations, limits, held_in(folder))

A folder belongs to one key and one model. No torch: the server, its checker and its worker all read it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.errors import FormatError, NotFoundError
from weft.ir.codec import DIGEST, Held
from weft.ir.constant import NamedConstant
from weft.ir.nodes import ConstantData
from weft.ir.types import DTYPES, TensorType


@dataclass(frozen=True, eq=False)
class StoredConstant(NamedConstant):
    """A constant in a file, read when its numbers are asked for."""

    file: str = ""
    begin: int = 0

    def tobytes(self) -> bytes:
        try:
            with open(self.file, "rb") as file:
                file.seek(self.begin)
                data = file.read(self.type.nbytes)
        except OSError:
            data = b""
        if len(data) != self.type.nbytes:
            raise gone(self.type, self.name)
        return data

    def there(self) -> bool:
        """Whether its file is still there, and long enough."""
        try:
            return os.stat(self.file).st_size >= self.begin + self.type.nbytes
        except OSError:
            return False


def gone(kind: TensorType, digest: str) -> NotFoundError:
    """The error for a constant that was left out of a program and is not here either."""
    return NotFoundError(
        f"the value sha256:{digest[:12]}… ({kind}) is not on this server, or no longer: it was freed or has expired; "
        "compute it again, or send it",
        digest=digest,
    )


def find(folder: Path, digest: str) -> StoredConstant | None:
    """The constant of that digest in a folder, or None."""
    if not DIGEST.fullmatch(digest):  # it becomes part of a path
        raise FormatError(f"{digest[:80]!r} is no digest: 64 hex digits")
    try:
        found: Any = json.loads((folder / f"{digest}.json").read_bytes())
    except FileNotFoundError:
        return None
    kind = TensorType(found["dtype"], tuple(found["shape"]))
    constant = StoredConstant(kind, digest, str(folder / found["file"]), found["begin"])
    return constant if constant.there() else None


def enter(folder: Path, kind: TensorType, digest: str, file: Path | None = None, begin: int = 0) -> None:
    """Note where a value lies: in `file` from byte `begin` on, or in a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    place = f"{digest}.bin" if file is None else os.path.relpath(file, folder)
    data = json.dumps({"dtype": kind.dtype, "shape": list(kind.shape), "file": place, "begin": begin})
    temporary = folder / f".{digest}.{os.getpid()}"
    temporary.write_text(data)
    os.replace(temporary, folder / f"{digest}.json")


def held_in(folder: str) -> Held:
    """What gives an experiment the constants that it leaves out: those in `folder` ("": none)."""

    def held(kind: TensorType, digest: str) -> ConstantData:
        found = find(Path(folder), digest) if folder else None
        if found is None:
            raise gone(kind, digest)
        if found.type != kind:
            raise FormatError(f"the value sha256:{digest[:12]}… is {found.type}, and the program calls it {kind}")
        return found

    return held


def type_of(dtype: str, shape: str) -> TensorType:
    """A type from its dtype and its shape in words, e.g. "2,64" ("" for a single number)."""
    try:
        kind = TensorType(dtype, tuple(int(size) for size in shape.split(",") if size))
    except ValueError:
        raise FormatError(f"{shape[:80]!r} is no shape: sizes by commas") from None
    if dtype not in DTYPES or any(not 0 <= size <= 1 << 62 for size in kind.shape) or len(kind.shape) > 64:
        raise FormatError(f"{dtype[:40]!r} of shape {shape[:80]!r} is no tensor's type")
    return kind
