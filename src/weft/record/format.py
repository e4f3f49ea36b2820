"""What ran, on what, giving what: the record of an experiment, in one safetensors file.

    data = encode_record(record)
    record_hash(record)               # its name: SHA-256 of everything but time and cost
    decode_record(data).results["diff"]

    file ::= "experiment" U8 (the program's own file, nested) , "record" U8 (JSON) , "result/" name …

The hash covers the experiment's hash, the model's fingerprint, versions, device, dtype, plan, seeds, edit counts and
the digest of every result. When it ran, how long it took and how much work was done are outside: the same finding by a
faster machine has the same name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from weft.errors import FormatError
from weft.ir.nodes import ConstantData, Experiment, Run, all_nodes
from weft.ir.outcome import Edits
from weft.ir.types import TensorType
from weft.record import tensors
from weft.record.tensors import Part, Value

SCHEMA = 1
RESULT = "result/"
NO_EDITS = Edits(0, 0, 0)


@dataclass(frozen=True)
class Record:
    """An experiment, what it ran on, and its results. `started` is seconds since the epoch, UTC.

    `kept` names what stayed where the model is, and is no result: name to dtype, shape and digest.
    """

    experiment: Experiment
    experiment_hash: str
    fingerprint: dict[str, Any]
    versions: dict[str, str]
    device: str
    dtype: str
    plan: str
    results: Mapping[str, ConstantData]
    edits: Edits = NO_EDITS
    seeds: tuple[int, ...] = ()
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    work: dict[str, int | float] = field(default_factory=dict[str, int | float])
    started: float = 0.0
    seconds: float = 0.0

    @property
    def hash(self) -> str:
        """Its name: SHA-256 of what was found and what it was found on."""
        return record_hash(self)

    def save(self, path: str | Path) -> Path:
        """Write it as one safetensors file, which `weft show` and `weft replay` read."""
        write_record(self, Path(path))
        return Path(path)

    def to_bytes(self) -> bytes:
        """What `save` writes, to be kept inside another file."""
        return encode_record(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """The record of `to_bytes`; FormatError if it is none."""
        return decode_record(data)

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read a record's file; FormatError if it is none."""
        return decode_record(Path(path).read_bytes())


def record_hash(record: Record) -> str:
    """The record's name: hex SHA-256 of what was found and what it was found on."""
    return _hash(_meta(record))


def encode_record(record: Record) -> bytes:
    """The record as one safetensors file."""
    return tensors.pack(_file(record))


def write_record(record: Record, path: Path) -> None:
    """As `encode_record`, into a file, without a second copy of the results in memory."""
    tensors.pack_to(path, _file(record))


def decode_record(data: bytes) -> Record:
    """The record in a file; FormatError if it is none, or if its parts do not belong together."""
    from weft.ir.codec import decode

    found = tensors.unpack(data)
    if "record" not in found or "experiment" not in found:
        raise FormatError(f"this file is no record: it holds {sorted(found)[:8]}, and no 'record' and 'experiment'")
    meta = read_meta(found["record"].tobytes())
    results = {name.removeprefix(RESULT): value for name, value in found.items() if name.startswith(RESULT)}
    record = _build(meta, decode(found["experiment"].tobytes()), results)
    if _hash(_meta(record)) != meta["hash"]:
        raise FormatError("this record was changed after it was made: its hash is not the one it was given")
    return record


def encode_results(results: Mapping[str, ConstantData]) -> bytes:
    """Results by name, as they cross the wire: one safetensors file."""
    return tensors.pack(results)


def decode_results(data: bytes) -> dict[str, Value]:
    """The results in a file that `encode_results` made."""
    return tensors.unpack(data)


def results_of(parts: Mapping[str, Part]) -> tuple[bytes, list[Part]]:
    """From a record's layout: the header of the file `encode_results` would give, and the parts that follow it."""
    found = {name.removeprefix(RESULT): part for name, part in parts.items() if name.startswith(RESULT)}
    head, order = tensors.header({name: part.type for name, part in found.items()})
    return head, [found[name] for name in order]


def read_meta(data: bytes) -> dict[str, Any]:
    """The facts of a record file, from its "record" tensor."""
    try:
        meta = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"this record's facts are not JSON: {error}") from None
    if not isinstance(meta, dict) or cast(Any, meta).get("schema") != SCHEMA:
        raise FormatError(f"this record is not of schema {SCHEMA}, the one this weft reads")
    return cast(dict[str, Any], meta)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a record's file, its hash among them, without its results."""
    with path.open("rb") as file:
        part = tensors.layout(file).get("record")
        if part is None:
            raise FormatError(f"{path.name} is no record")
        file.seek(part.begin)
        return read_meta(file.read(part.end - part.begin))


def seeds_of(experiment: Experiment) -> tuple[int, ...]:
    """The seeds an experiment names, in the order of its runs."""
    options = (dict(node.options) for node in all_nodes(experiment.nodes) if isinstance(node, Run))
    return tuple(int(cast(int, each["seed"])) for each in options if each.get("seed") is not None)


def _file(record: Record) -> dict[str, ConstantData]:
    from weft.ir.codec import constants_of, encode

    # What is known by its digest alone, or lies on a server beside its records, is left out.
    held = {digest for digest, data in constants_of(record.experiment).items() if getattr(data, "elsewhere", False)}
    meta = _meta(record)
    meta |= {"hash": _hash(meta), "work": record.work, "started": record.started, "seconds": record.seconds}
    parts: dict[str, ConstantData] = {
        "experiment": _blob(encode(record.experiment, held)),
        "record": _blob(_canonical(meta)),
    }
    return parts | {RESULT + name: value for name, value in record.results.items()}


def _meta(record: Record) -> dict[str, Any]:
    fields = ("experiment_hash", "fingerprint", "versions", "device", "dtype", "plan")
    meta: dict[str, Any] = {name: getattr(record, name) for name in fields}
    meta |= {"schema": SCHEMA, "seeds": list(record.seeds), "edits": record.edits._asdict()}
    if record.kept:
        meta["kept"] = record.kept
    meta["results"] = {name: {**asdict(value.type), "digest": value.digest()} for name, value in record.results.items()}
    return cast(dict[str, Any], json.loads(_canonical(meta)))


def _hash(meta: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(meta)).hexdigest()


def _build(meta: dict[str, Any], experiment: Experiment, results: dict[str, Value]) -> Record:
    from weft.ir.hash import content_hash

    if content_hash(experiment) != meta.get("experiment_hash"):
        raise FormatError("this record's experiment is not the one it names: the file was changed")
    try:
        return Record(
            experiment=experiment,
            experiment_hash=meta["experiment_hash"],
            fingerprint=meta["fingerprint"],
            versions=meta["versions"],
            device=meta["device"],
            dtype=meta["dtype"],
            plan=meta["plan"],
            results=results,
            edits=Edits(**meta["edits"]),
            seeds=tuple(meta["seeds"]),
            kept=meta.get("kept", {}),
            work=meta["work"],
            started=meta["started"],
            seconds=meta["seconds"],
        )
    except (KeyError, TypeError) as error:
        raise FormatError(f"this record lacks a fact it should have: {error}") from None


def _blob(data: bytes) -> Value:
    return Value(TensorType("uint8", (len(data),)), data)


def _canonical(meta: dict[str, Any]) -> bytes:
    """JSON in one way only. What JSON lacks (a device, a path, …) is written as its text."""
    return json.dumps(meta, sort_keys=True, separators=(",", ":"), default=str).encode()
