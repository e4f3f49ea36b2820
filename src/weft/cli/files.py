"""`weft show` and `weft replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from weft.errors import FormatError, NotFoundError

if TYPE_CHECKING:
    from weft.record import Comparison, Record


def read(file: Path) -> bytes:
    """The bytes of a file the user named."""
    if not file.is_file():
        raise NotFoundError(f"there is no file {file}; give the path of a record or an experiment")
    return file.read_bytes()


def write(record: Record, file: Path) -> Path:
    """Write a record to `file`; its path."""
    from weft.record.format import write_record

    write_record(record, file)
    return file


def show_file(file: Path, as_json: bool) -> None:
    """Print the file's text, or its facts with the text among them."""
    from weft.record import show

    read(file)
    text = show(file)
    print(json.dumps({"file": str(file), "text": text}) if as_json else text)


def replay_file(file: Path, model: str, tolerance: float, as_json: bool) -> bool:
    """Run a record again on the model it names (or `model`); whether everything agrees."""
    from weft.record import decode_record

    record = decode_record(read(file))
    comparison = replay_record(record, model or _named(record.fingerprint, file))
    agrees = comparison.agrees(tolerance)
    if as_json:
        print(json.dumps(comparison.to_data() | {"agrees": agrees, "tolerance": tolerance}, indent=2))
    else:
        print(comparison)
        print(f"{'agrees' if agrees else 'does not agree'} (tolerance {tolerance:g})")
    return agrees


def replay_record(record: Record, source: str) -> Comparison:
    """Run a record again in this process, on the model at `source`."""
    from weft import planted
    from weft.models import load
    from weft.record.replay import replay

    planted.register()
    return replay(record, load(source))


def _named(fingerprint: dict[str, object], file: Path) -> str:
    name = fingerprint.get("id") or fingerprint.get("name")
    if not name:
        raise FormatError(f"this record does not name its model; say which: weft replay {file} --model SOURCE")
    return str(name)
