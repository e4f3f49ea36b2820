"""The user's own lines beside an experiment, as they cross the wire: outside the program and outside its hash.

body = encode(experiment) + trailer(experiment)        # posted with ?locations=len(trailer)
"""

from __future__ import annotations

from dataclasses import replace

from weft.errors import FormatError, WeftError
from weft.ir.codec import Held, NamedConstant, decode, decode_locations, encode_locations
from weft.ir.limits import DEFAULT, Limits
from weft.ir.nodes import Experiment


def trailer(experiment: Experiment) -> bytes:
    """The lines of an experiment's nodes; empty if it has none."""
    return encode_locations(experiment) if any(experiment.locations) else b""


def read_body(body: bytes, locations: int, limits: Limits = DEFAULT, held: Held = NamedConstant) -> Experiment:
    """The experiment in a posted body whose last `locations` bytes are the user's lines.

    `held` gives the constants that the body leaves out.
    """
    if not 0 <= locations <= len(body):
        raise FormatError(f"locations={locations} is not a number of bytes of this body of {len(body):,}")
    end = len(body) - locations
    experiment = decode(body[:end], limits, held)
    if not locations:
        return experiment
    lines = decode_locations(body[end:], limits)
    if len(lines) != len(experiment.nodes):
        raise FormatError(f"{len(lines)} lines were sent for {len(experiment.nodes)} nodes; send one a node, or none")
    return replace(experiment, locations=lines)


def pointed(error: WeftError, experiment: Experiment | None) -> WeftError:
    """The error, pointing at the line of the node it names, where both are known."""
    node = error.details.get("node")
    return error.at(experiment.where(node)) if experiment is not None and isinstance(node, int) and node >= 0 else error
