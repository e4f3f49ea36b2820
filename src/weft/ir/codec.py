"""An experiment as one safetensors file, and back.

    data = encode(experiment)
    decode(data) == experiment

The file's tensors are the constants, each under its digest and each once, and one U8 tensor `program` of canonical
JSON (`wire` has its grammar). Constants that the reader has already are left out: a U8 tensor `held` names them by
digest, with their types, as JSON {digest: [dtype, shape]}. The metadata holds the schema version and nothing else. The
user's own lines travel beside it (`encode_locations`): they are no part of what an experiment is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from weft.errors import FormatError, Location, WeftError
from weft.ir import strictjson
from weft.ir.constant import BytesConstant, NamedConstant, digest_of
from weft.ir.container import pack, unpack
from weft.ir.hash import program_bytes
from weft.ir.limits import DEFAULT, Limits, hold
from weft.ir.nodes import SCHEMA, Const, ConstantData, Experiment, Loop, Node, all_nodes
from weft.ir.types import DTYPES, TensorType
from weft.ir.wire import KIND_OF, decode_node

__all__ = ["BytesConstant", "NamedConstant", "decode", "decode_locations", "digest_of", "encode", "encode_locations"]

PROGRAM, HELD = "program", "held"
DIGEST = re.compile(r"[0-9a-f]{64}")
Held = Callable[[TensorType, str], ConstantData]
_ARRAYS_PER_NODE = 24


def constants_of(experiment: Experiment) -> dict[str, ConstantData]:
    """The experiment's constants by digest."""
    return {node.data.digest(): node.data for node in all_nodes(experiment.nodes) if isinstance(node, Const)}


def with_constants(nodes: tuple[Node, ...], found: Mapping[str, ConstantData]) -> tuple[Node, ...]:
    """The same nodes with other holders of the same constants, by digest; loops' bodies too."""

    def changed(node: Node) -> Node:
        if isinstance(node, Const):
            return Const(found.get(node.data.digest(), node.data))
        return replace(node, body=with_constants(node.body, found)) if isinstance(node, Loop) else node

    return tuple(changed(node) for node in nodes)


def encode(experiment: Experiment, held: Collection[str] = ()) -> bytes:
    """The experiment as the bytes of a safetensors file; the same experiment always gives the same bytes.

    Of the constants whose digests are in `held` only name and type are written: whoever reads the file has them.
    """
    program = program_bytes(experiment)
    constants = constants_of(experiment)
    tensors: dict[str, tuple[TensorType, bytes | memoryview]] = {
        digest: (data.type, data.data if isinstance(data, BytesConstant) else data.tobytes())
        for digest, data in constants.items()
        if digest not in held
    }
    if left := {digest: [kind.dtype, list(kind.shape)] for digest in held if (kind := constants[digest].type)}:
        named = strictjson.dump(left)
        tensors[HELD] = (TensorType("uint8", (len(named),)), named)
    tensors[PROGRAM] = (TensorType("uint8", (len(program),)), program)
    return pack(tensors, {"schema": str(SCHEMA)})


def decode(data: bytes, limits: Limits = DEFAULT, held: Held = NamedConstant) -> Experiment:
    """The experiment in `data`, which may come from anybody: FormatError or LimitError for all that is not one.

    Each constant is checked against its digest; for one that was left out, `held` (type, digest) gives what the reader
    has. That the program makes sense is for `check` to say.
    """
    contents = unpack(data, limits)
    _schema(contents.metadata.pop("schema", None), contents.metadata)
    kind, program = contents.tensors.pop(PROGRAM, (None, memoryview(b"")))
    if kind is None or kind.dtype != "uint8" or len(kind.shape) != 1:
        raise FormatError("the file has no U8 tensor 'program' of one dimension: it is no experiment")
    hold(limits, "program_bytes", len(program))
    left = _left_out(contents.tensors.pop(HELD, None), limits)
    here = sum(len(raw) for _, raw in contents.tensors.values())
    hold(limits, "constant_bytes", here + sum(kind.nbytes for kind in left.values()))
    constants: dict[str, ConstantData] = {name: _constant(name, *each) for name, each in contents.tensors.items()}
    if twice := constants.keys() & left.keys():
        raise FormatError(f"the constant {min(twice)[:12]!r}… is both in the file and said to be held elsewhere")
    constants |= {digest: held(kind, digest) for digest, kind in left.items()}
    return Experiment(_program(bytes(program), constants, limits))


def _left_out(entry: tuple[TensorType, memoryview] | None, limits: Limits) -> dict[str, TensorType]:
    """The types by digest of the constants that a file leaves out."""
    if entry is None:
        return {}
    hold(limits, "program_bytes", len(entry[1]))
    most = 2 * limits.nodes + 1
    found = strictjson.parse(bytes(entry[1]), what="the list of constants left out", depth=3, objects=1, arrays=most)
    if not strictjson.is_object(found) or not all(DIGEST.fullmatch(digest) for digest in found):
        raise FormatError("the constants left out must be an object of types by digest (64 hex digits)")
    return {digest: _type(digest, each) for digest, each in found.items()}


def _type(digest: str, given: Any) -> TensorType:
    match given:
        case [str() as dtype, [*sizes]] if dtype in DTYPES and all(_size(each) for each in sizes) and len(sizes) <= 64:
            return TensorType(dtype, tuple(sizes))
        case _:
            raise FormatError(f"the type of the constant {digest[:12]!r}… must be [dtype, [sizes]]")


def _size(given: Any) -> bool:
    return type(given) is int and 0 <= given <= 1 << 62


def _schema(schema: str | None, rest: dict[str, str]) -> None:
    if schema != str(SCHEMA) or rest:
        raise FormatError(
            f"the file's metadata must be schema = {SCHEMA} and nothing else; it has schema {str(schema)[:20]!r}"
            + (f" and also {', '.join(repr(name[:40]) for name in list(rest)[:3])}" if rest else "")
        )


def _constant(name: str, kind: TensorType, raw: memoryview) -> BytesConstant:
    if digest_of(kind, raw) != name:
        raise FormatError(f"tensor {name[:80]!r} ({kind}) is not named by the SHA-256 of its type and bytes")
    if kind.dtype == "bool" and bytes(raw).translate(None, b"\0\1"):
        raise FormatError(f"tensor {name[:12]!r}… is said to be BOOL but holds bytes other than 0 and 1")
    return BytesConstant(kind, raw)


def _program(program: bytes, constants: Mapping[str, ConstantData], limits: Limits) -> tuple[Node, ...]:
    arrays = _ARRAYS_PER_NODE * limits.nodes
    if program.count(b'"node":') > limits.nodes:
        hold(limits, "nodes", program.count(b'"node":'))
    data = strictjson.parse(program, what="the program", depth=limits.depth, objects=limits.nodes + 1, arrays=arrays)
    if not strictjson.is_object(data) or data.keys() != {"nodes", "schema"}:
        raise FormatError("the program must be an object with exactly the fields nodes and schema")
    listed = data["nodes"]
    if type(data["schema"]) is not int or data["schema"] != SCHEMA or not strictjson.is_list(listed):
        raise FormatError(f"the program must have schema {SCHEMA} and a list of nodes")
    nodes = tuple(_node(index, each, constants) for index, each in enumerate(listed))
    if strictjson.dump(data) != program:
        raise FormatError("the program is not canonical JSON: keys sorted, no spaces, each number in its shortest form")
    unused = constants.keys() - {node.data.digest() for node in all_nodes(nodes) if isinstance(node, Const)}
    if unused:
        raise FormatError(f"the tensor {min(unused)[:12]!r}… is used by no node of the program")
    return nodes


def _node(index: int, data: Any, constants: Mapping[str, ConstantData]) -> Node:
    try:
        return decode_node(data, constants)
    except WeftError as error:
        kind = data.get("node") if strictjson.is_object(data) else None
        shown = f" ({kind})" if kind in KIND_OF.values() else ""
        raise FormatError(f"node {index}{shown}: {error.message}", node=index) from None


def encode_locations(experiment: Experiment) -> bytes:
    """The user's lines as JSON: files by name once, then [file, line, text] or null for each node."""
    files: dict[str, int] = {}
    rows = [
        None if place is None else [files.setdefault(place.file, len(files)), place.line, _printable(place.text)]
        for place in experiment.locations
    ]
    return strictjson.dump({"files": [_printable(name) for name in files], "nodes": rows})


def decode_locations(data: bytes, limits: Limits = DEFAULT) -> tuple[Location | None, ...]:
    """The lines that `encode_locations` wrote."""
    hold(limits, "program_bytes", len(data))
    found = strictjson.parse(data, what="the lines' file", depth=3, objects=1, arrays=limits.nodes + 2)
    if not strictjson.is_object(found) or found.keys() != {"files", "nodes"}:
        raise FormatError("the user's lines must be an object with exactly the fields files and nodes")
    files, rows = found["files"], found["nodes"]
    if not strictjson.is_list(files) or not strictjson.is_list(rows) or not all(isinstance(f, str) for f in files):
        raise FormatError("the user's lines must have a list of file names and a list of lines")
    return tuple(_location(each, files) for each in rows)


def _location(each: Any, files: list[str]) -> Location | None:
    match each:
        case None:
            return None
        case [int() as file, int() as line, str() as text] if not isinstance(file, bool) and 0 <= file < len(files):
            return Location(files[file], int(line), text)
        case _:
            raise FormatError("a user's line must be null or [number of its file, line, text]")


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
