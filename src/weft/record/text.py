"""A record for people: what `weft show FILE` prints."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from weft.record import tensors
from weft.record.format import Record, decode_record


def show(path: str | Path) -> str:
    """The text of a file that weft wrote: a record, or an experiment alone."""
    from weft.ir.codec import decode
    from weft.ir.hash import content_hash
    from weft.ir.text import render

    data = Path(path).read_bytes()
    if "record" in tensors.unpack(data):
        return describe(decode_record(data))
    experiment = decode(data)
    return f"experiment  {content_hash(experiment)}\n\n{render(experiment)}"


def describe(record: Record) -> str:
    """A record's facts, results and program."""
    from weft.ir.text import render

    when = dt.datetime.fromtimestamp(record.started, dt.UTC).isoformat(timespec="seconds")
    edits = record.edits
    facts = {
        "record": record.hash,
        "experiment": record.experiment_hash,
        "model": ", ".join(f"{name} {value}" for name, value in record.fingerprint.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in record.versions.items()),
        "ran": f"{when}, {record.seconds:.3f} s, {record.dtype} on {record.device}, plan {record.plan}",
        "seeds": ", ".join(map(str, record.seeds)) or "none",
        "edits": f"{edits.asked} asked, {edits.applied} applied, {edits.without_effect} proven without effect",
        "work": ", ".join(f"{name} {value:,}" for name, value in record.work.items()) or "not counted",
    }
    lines = [f"{name:<12}{value}" for name, value in facts.items()]
    lines += [f"{'result':<12}{name}: {value.type}{_numbers(value)}" for name, value in record.results.items()]
    return "\n".join([*lines, "", render(record.experiment)])


def _numbers(value: object) -> str:
    """The numbers themselves, where they are few."""
    import numpy as np

    array = np.asarray(value)
    if array.size > 8:
        return ""
    return " = " + np.array2string(array, precision=6, separator=", ").replace("\n", "")
