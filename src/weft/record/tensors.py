"""Named tensors as bytes, without torch: one safetensors file in, one out.

    data = tensors.pack({"diff": Value(TensorType("float32", (2,)), b"........")})
    tensors.unpack(data)["diff"].type            # float32[2]

Results can be large, so besides the whole file in memory (weft.ir.container does that) this writes one tensor at a
time, and finds where each lies so that a part can be served without reading the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from weft.errors import FormatError
from weft.ir import container
from weft.ir.constant import BytesConstant
from weft.ir.container import header
from weft.ir.limits import UNLIMITED
from weft.ir.nodes import ConstantData
from weft.ir.types import FROM_SAFETENSORS, TensorType

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class Value(BytesConstant):
    """A tensor's type and bytes. `numpy.asarray(value)` works; bfloat16, which numpy lacks, is widened to float32."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        import numpy as np

        if self.type.dtype == "bfloat16":
            wide = np.frombuffer(self.data, dtype=np.uint16).astype(np.uint32) << 16
            array = wide.view(np.float32).reshape(self.type.shape)
        else:
            array = np.frombuffer(self.data, dtype=self.type.dtype).reshape(self.type.shape)
        return array.astype(dtype or array.dtype)


class Part(NamedTuple):
    """Where one tensor lies in a file, in bytes from its beginning."""

    type: TensorType
    begin: int
    end: int


def pack(tensors: Mapping[str, ConstantData]) -> bytes:
    """The tensors as one safetensors file."""
    return b"".join(_chunks(tensors))


def pack_to(path: Path, tensors: Mapping[str, ConstantData]) -> None:
    """Write the tensors to `path`, one at a time, so that memory holds no second copy of them all."""
    with path.open("wb") as file:
        for chunk in _chunks(tensors):
            file.write(chunk)


def unpack(data: bytes) -> dict[str, Value]:
    """The tensors in a safetensors file; FormatError if it is anything else."""
    found = container.unpack(data, UNLIMITED).tensors
    return {name: Value(kind, part) for name, (kind, part) in found.items()}


def layout(file: BinaryIO) -> dict[str, Part]:
    """Where each tensor lies in a file that `pack_to` wrote; reads its header alone."""
    length = int.from_bytes(file.read(8), "little")
    if length > 1 << 30:
        raise FormatError(f"this file is not one that weft wrote: its header claims {length:,} bytes")
    parts: dict[str, Part] = {}
    for name, entry in json.loads(file.read(length)).items():
        kind = TensorType(FROM_SAFETENSORS[entry["dtype"]], tuple(entry["shape"]))
        begin, end = entry["data_offsets"]
        parts[name] = Part(kind, 8 + length + begin, 8 + length + end)
    return parts


def _chunks(tensors: Mapping[str, ConstantData]) -> Iterator[bytes]:
    head, order = header({name: tensor.type for name, tensor in tensors.items()})
    yield head
    for name in order:
        yield tensors[name].tobytes()
