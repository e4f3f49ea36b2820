"""Constants held as plain bytes, and the digest by which every constant is known.

data = BytesConstant(TensorType("float32", (2,)), struct.pack("<2f", 1, 2))
data.digest()    # the same 64 hex digits wherever these numbers are held
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

from weft.errors import FormatError
from weft.ir.types import DTYPES, TensorType


def digest_of(type_: TensorType, data: bytes | memoryview) -> str:
    """SHA-256 of a tensor: its type in words ("float32[2, 64]"), then its bytes (little endian, row by row)."""
    found = hashlib.sha256(str(type_).encode())
    found.update(data)
    return found.hexdigest()


@dataclass(frozen=True, eq=False)
class BytesConstant:
    """A constant held as bytes; two are equal when their digests are. A memoryview keeps its whole file in memory."""

    type: TensorType
    data: bytes | memoryview = field(repr=False)

    def __post_init__(self) -> None:
        given = self.data.nbytes if isinstance(self.data, memoryview) else len(self.data)
        if self.type.dtype not in DTYPES or given != self.type.nbytes:
            raise FormatError(f"a constant of type {self.type} cannot have {given} bytes of data")

    def tobytes(self) -> bytes:
        return bytes(self.data)

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.type, self.data)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BytesConstant | NamedConstant):
            return self.digest() == other.digest()
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest())


@dataclass(frozen=True, eq=False)
class NamedConstant:
    """A constant of which only type and digest are known, e.g. from the text form; asking for its bytes is an error."""

    type: TensorType
    name: str
    elsewhere: ClassVar[bool] = True
    """Whether a file that holds the experiment leaves its bytes out."""

    def tobytes(self) -> bytes:
        raise FormatError(
            f"the data of constant sha256:{self.name[:12]}… ({self.type}) is not here: the text form names constants "
            "without their numbers; give them with parse(text, constants={digest: data}), or use the file form"
        )

    def digest(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BytesConstant | NamedConstant):
            return self.name == other.digest()
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.name)
