"""Records: what ran, on what, giving what; written, read, shown and run again."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weft.record.format import (
    Record,
    decode_record,
    decode_results,
    encode_record,
    encode_results,
    record_hash,
)
from weft.record.tensors import Value
from weft.record.text import describe, show

if TYPE_CHECKING:
    from weft.record.build import record_of
    from weft.record.replay import Comparison, compare, replay_file

__all__ = [
    "Comparison",
    "Record",
    "Value",
    "compare",
    "decode_record",
    "decode_results",
    "describe",
    "encode_record",
    "encode_results",
    "record_hash",
    "record_of",
    "replay_file",
    "show",
]


def __getattr__(name: str) -> Any:
    """What may need torch is imported when it is asked for."""
    homes = {"record_of": "build", "Comparison": "replay", "compare": "replay", "replay_file": "replay"}
    if name in homes:
        return getattr(import_module(f"weft.record.{homes[name]}"), name)
    raise AttributeError(f"module 'weft.record' has no attribute {name!r}")
