"""The safetensors container, read strictly and written in one way only. No torch, no numpy.

    file   ::= length (8 bytes, little endian)  header (JSON, spaces at its end)  body
    header ::= {"__metadata__": {name: text}, tensor name: {"dtype", "shape", "data_offsets"}}

`pack` writes what `safetensors.serialize` would. `unpack` checks every size before it reads, and copies no tensor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from weft.errors import FormatError
from weft.ir.limits import Limits, hold
from weft.ir.strictjson import is_list, is_object, parse
from weft.ir.types import DTYPES, FROM_SAFETENSORS, TensorType


class Contents(NamedTuple):
    """What a file holds: its metadata, and each tensor's type and bytes (a view into the file)."""

    metadata: dict[str, str]
    tensors: dict[str, tuple[TensorType, memoryview]]


def pack(tensors: Mapping[str, tuple[TensorType, bytes | memoryview]], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file."""
    head, names = header({name: kind for name, (kind, _) in tensors.items()}, metadata)
    return b"".join([head, *(tensors[name][1] for name in names)])


def header(types: Mapping[str, TensorType], metadata: Mapping[str, str] | None = None) -> tuple[bytes, list[str]]:
    """The beginning of a file that holds these tensors, and the order in which their bytes follow it.

    Wide dtypes come first, so that every tensor is aligned; then by name.
    """
    names = sorted(types, key=lambda name: (-DTYPES[types[name].dtype].itemsize, name))
    entries: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    offset = 0
    for name in names:
        kind = types[name]
        end = offset + kind.nbytes
        dtype = DTYPES[kind.dtype].safetensors
        entries[name] = {"dtype": dtype, "shape": list(kind.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, names


def unpack(data: bytes, limits: Limits, *, tensors: int | None = None) -> Contents:
    """The contents of a file of at most `tensors` tensors; FormatError or LimitError for anything else."""
    if len(data) < 8:
        raise FormatError(f"this is no safetensors file: it has {len(data)} bytes, and the length alone takes 8")
    length = int.from_bytes(data[:8], "little")
    hold(limits, "header_bytes", length)
    if 8 + length > len(data):
        raise FormatError(f"the file is cut short: its header has {length:,} bytes, but {len(data) - 8:,} are there")
    most = (limits.nodes if tensors is None else tensors) + 1
    header = parse(data[8 : 8 + length], what="the file's header", depth=3, objects=most + 2, arrays=2 * most)
    if not is_object(header):
        raise FormatError("the file's header is no JSON object")
    metadata = _metadata(header.pop("__metadata__", {}))
    body = memoryview(data)[8 + length :]
    entries = {name: _entry(name, entry) for name, entry in header.items()}
    _covers(entries, len(body))
    return Contents(metadata, {name: (kind, body[start:end]) for name, (kind, start, end) in entries.items()})


def _metadata(found: Any) -> dict[str, str]:
    if not is_object(found) or not all(isinstance(value, str) for value in found.values()):
        raise FormatError("the header's __metadata__ must be an object of strings")
    return found


def _entry(name: str, entry: Any) -> tuple[TensorType, int, int]:
    """One tensor's type and place, each field of exactly the kind it must be, and the sizes in agreement."""
    label = f"tensor {name[:80]!r} of the header"
    if not is_object(entry) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{label} must have exactly the fields dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in FROM_SAFETENSORS:
        raise FormatError(f"{label}: dtype {str(dtype)[:40]!r} is not one of {', '.join(FROM_SAFETENSORS)}")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise FormatError(f"{label}: shape and data_offsets must be lists of whole numbers from 0 to 2^62")
    if len(shape) > 64:
        raise FormatError(f"{label} has {len(shape):,} dimensions; at most 64 are read")
    kind, (start, end) = TensorType(FROM_SAFETENSORS[dtype], tuple(shape)), offsets
    if end - start != kind.nbytes:
        raise FormatError(f"{label}: {kind} takes {kind.nbytes:,} bytes, but data_offsets give it {end - start:,}")
    return kind, start, end


def _sizes(found: Any) -> bool:
    return is_list(found) and all(type(size) is int and 0 <= size <= 1 << 62 for size in found)


def _covers(entries: dict[str, tuple[TensorType, int, int]], length: int) -> None:
    """The tensors fill the body from its first byte to its last, without holes and without sharing."""
    at = 0
    for name, (_, start, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if start != at:
            raise FormatError(f"tensor {name[:80]!r} begins at byte {start:,} of the body, but {at:,} was expected")
        at = end
    if at != length:
        raise FormatError(f"the file's tensors take {at:,} bytes, but its body has {length:,}")
