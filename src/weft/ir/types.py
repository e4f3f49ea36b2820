"""Tensor types as the program knows them: a dtype's name and a shape. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from weft.errors import DtypeError


class DtypeInfo(NamedTuple):
    """What arithmetic needs to know of a dtype: bytes, category (bool < int < float), its name in safetensors."""

    itemsize: int
    category: str
    safetensors: str


DTYPES: dict[str, DtypeInfo] = {
    "bool": DtypeInfo(1, "bool", "BOOL"),
    "uint8": DtypeInfo(1, "int", "U8"),
    "int8": DtypeInfo(1, "int", "I8"),
    "int16": DtypeInfo(2, "int", "I16"),
    "int32": DtypeInfo(4, "int", "I32"),
    "int64": DtypeInfo(8, "int", "I64"),
    "float16": DtypeInfo(2, "float", "F16"),
    "bfloat16": DtypeInfo(2, "float", "BF16"),
    "float32": DtypeInfo(4, "float", "F32"),
    "float64": DtypeInfo(8, "float", "F64"),
}
FROM_SAFETENSORS: dict[str, str] = {info.safetensors: name for name, info in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorType:
    """The dtype and shape of a value, e.g. `float32[2, 7, 64]`."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * DTYPES[self.dtype].itemsize

    @property
    def category(self) -> str:
        return DTYPES[self.dtype].category


def dtype_info(name: str) -> DtypeInfo:
    """The facts about dtype `name`; DtypeError with the known names if there is no such dtype."""
    if name not in DTYPES:
        raise DtypeError(f"dtype {name!r} is not one that weft knows; use one of {', '.join(DTYPES)}")
    return DTYPES[name]
