"""The content hash: what makes two experiments the same one.

content_hash(experiment)     # 64 hex digits
"""

from __future__ import annotations

import hashlib

from weft.errors import FormatError, ProgramError
from weft.ir import strictjson
from weft.ir.nodes import SCHEMA, Experiment
from weft.ir.wire import KIND_OF, encode_node


def program_bytes(experiment: Experiment) -> bytes:
    """The program as canonical JSON: schema version and nodes, each constant as the digest of its data."""
    nodes: list[object] = []
    for index, node in enumerate(experiment.nodes):
        try:
            nodes.append(encode_node(node))
        except FormatError as error:
            kind = KIND_OF.get(type(node), "?")
            raise ProgramError(f"node {index} ({kind}): {error.message}", where=experiment.where(index)) from None
    return strictjson.dump({"nodes": nodes, "schema": SCHEMA})


def content_hash(experiment: Experiment) -> str:
    """SHA-256 of the program's canonical bytes: nodes, constants (by digest) and schema version; no locations."""
    return hashlib.sha256(program_bytes(experiment)).hexdigest()
