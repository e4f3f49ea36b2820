"""What a server and its worker say to each other, over a local socket. No pickle: JSON, and bytes beside it.

    frame   ::= length of header (4 bytes) , length of payload (8 bytes) , header (JSON) , payload
    server  ──▶ Check | RunJob | CancelJob
    worker  ──▶ Ready | Unready | Progress | Checked | Done | Failed | Cancelled

Every message is a frozen dataclass; a field called `payload` travels as bytes, all others as JSON. Large things (an
experiment's file, a record) are named by their path: both ends are on one machine, and neither needs a copy in memory.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from weft.errors import FormatError

PREFIX = struct.Struct("<IQ")
MAX_HEADER = 64 << 20
MAX_PAYLOAD = 1 << 40


@dataclass(frozen=True, slots=True)
class RunJob:
    """Run the experiment in the file `experiment`, whose last `locations` bytes are lines; write `record`.

    Constants that it leaves out are in the folder `values`. The file `partial` holds what is known so far.
    """

    job: str
    experiment: str
    record: str
    plan: str = "auto"
    locations: int = 0
    values: str = ""
    partial: str = ""


@dataclass(frozen=True, slots=True)
class CancelJob:
    """Stop the job as soon as may be; it is answered with Cancelled (or Done, if it was too late)."""

    job: str


@dataclass(frozen=True, slots=True)
class Check:
    """Parse and check the experiment in a file, as RunJob would, and run nothing. Answered with Checked or Failed."""

    job: str
    experiment: str
    card: str
    locations: int = 0
    values: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has its model: the card (JSON, as payload) and the fingerprint."""

    fingerprint: dict[str, Any]
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Unready:
    """The worker cannot have its model, and why."""

    error: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is, 0 to 1, and what it is doing; of a loop the rows of its history since the last report."""

    job: str
    fraction: float
    stage: str
    rows: list[list[float | None]] = field(default_factory=list[list[float | None]])


@dataclass(frozen=True, slots=True)
class Checked:
    """The experiment is legal: its content hash, what it is made of, and the names of what it keeps."""

    job: str
    hash: str
    nodes: int
    kept: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Done:
    """The job's record is in the file that was named, under this hash.

    `kept` are the values that stay: each with name, dtype, shape, digest, and the file that its bytes are in.
    """

    job: str
    record: str
    seconds: float
    kept: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed, with an error as data. `record` is that of the steps done, where it was a loop."""

    job: str
    error: dict[str, Any]
    record: str | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The job was cancelled and gave nothing, or of a loop the `record` of the steps done."""

    job: str
    record: str | None = None


Message = RunJob | CancelJob | Check | Ready | Unready | Progress | Checked | Done | Failed | Cancelled
KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (RunJob, CancelJob, Check, Ready, Unready, Progress, Checked, Done, Failed, Cancelled)
}


def encode_message(message: Message) -> bytes:
    """The message as one frame."""
    names = [each.name for each in fields(message) if each.name != "payload"]
    body = {"kind": type(message).__name__, **{name: getattr(message, name) for name in names}}
    header = json.dumps(body, separators=(",", ":"), default=str).encode()
    payload: bytes = getattr(message, "payload", b"")
    return PREFIX.pack(len(header), len(payload)) + header + payload


def frame_lengths(prefix: bytes) -> tuple[int, int]:
    """The lengths of header and payload that a frame's first bytes announce."""
    header, payload = PREFIX.unpack(prefix)
    if header > MAX_HEADER or payload > MAX_PAYLOAD:
        raise FormatError(
            f"a message announces {header:,} + {payload:,} bytes; at most {MAX_HEADER:,} + {MAX_PAYLOAD:,}"
        )
    return header, payload


def decode_message(header: bytes, payload: bytes = b"") -> Message:
    """The message in a frame's header and payload; FormatError if there is none."""
    try:
        body: Any = json.loads(header)
        kind: Any = KINDS[body.pop("kind")]
        return kind(**body, **({"payload": payload} if payload else {}))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"this is not a message weft knows: {error!r}") from None


def read_message(read: Callable[[int], bytes]) -> Message | None:
    """The next message from a blocking `read(n)` that gives exactly n bytes, or fewer at the end; None at the end."""
    prefix = read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header, payload = frame_lengths(prefix)
    head, body = read(header), read(payload) if payload else b""
    return decode_message(head, body) if len(head) == header and len(body) == payload else None
