"""Bodies that nobody should post: `CORPUS` maps what is wrong with each to its bytes."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

NAN, ROW = struct.pack("<f", float("nan")), struct.pack("<2q", 1, 2)


def container(header: object, body: bytes = b"") -> bytes:
    """A safetensors file with any header at all."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def file(program: bytes, *constants: tuple[str, list[int], bytes]) -> bytes:
    """An experiment's file whose program is any bytes at all; constants as (dtype, shape, bytes), named truthfully."""
    header: dict[str, Any] = {"__metadata__": {"schema": "1"}}
    body = b""
    for code, shape, data in constants:
        header[digest(code, shape, data)] = {
            "dtype": code,
            "shape": shape,
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    header["program"] = {"dtype": "U8", "shape": [len(program)], "data_offsets": [len(body), len(body) + len(program)]}
    return container(header, body + program)


def digest(code: str, shape: list[int], data: bytes) -> str:
    name = {"F32": "float32", "I64": "int64", "BOOL": "bool"}[code]
    return hashlib.sha256(f"{name}[{', '.join(map(str, shape))}]\n".encode() + data).hexdigest()


def program(*nodes: dict[str, Any]) -> bytes:
    return json.dumps({"nodes": nodes, "schema": 1}, sort_keys=True, separators=(",", ":")).encode()


def experiment(*nodes: object) -> bytes:
    """The file of an experiment that weft itself encodes, unchecked."""
    from weft.ir.codec import encode
    from weft.ir.nodes import Experiment

    return encode(Experiment(nodes))  # type: ignore[arg-type]


def corpus() -> dict[str, bytes]:
    from weft.ir.constant import BytesConstant
    from weft.ir.nodes import Const, Op, Read, Ref, Run, Save, Site, Update, ViewStep
    from weft.ir.types import TensorType

    def const(dtype: str, shape: tuple[int, ...], data: bytes) -> Const:
        return Const(BytesConstant(TensorType(dtype, shape), data))

    pair = const("float32", (2,), b"\0" * 8)
    tokens = const("int64", (1, 2), ROW)
    legal = experiment(pair, Save("x", Ref(0)))
    run = Run("tokens", (("tokens", Ref(0)),))
    deep = b'{"nodes":[' + b"[" * 10_000 + b"]" * 10_000 + b'],"schema":1}'
    million = b'{"nodes":[' + b",".join([b'{"name":"x","node":"param"}'] * 1_000_000) + b'],"schema":1}'
    lists = b'{"nodes":[' + b",".join([b"[]"] * 4_000_000) + b'],"schema":1}'
    huge = {"a": {"dtype": "F32", "shape": [1 << 30, 1 << 30], "data_offsets": [0, 8]}}
    return {
        "nothing": b"",
        "seven bytes": b"\1\2\3\4\5\6\7",
        "no safetensors": b"PK\3\4" + b"\0" * 100,
        "cut short": legal[:-3],
        "cut in the header": legal[:40],
        "longer than it says": legal + b"\0",
        "header longer than the file": struct.pack("<Q", 1 << 62) + b"{}",
        "header of 2^64 - 1": b"\xff" * 8 + b"{}",
        "header bomb": container(b'{"a":' + b"[" * 8_000_000),
        "header of duplicate keys": container(b'{"a":{},"a":{}}'),
        "header of a million tensors": container({str(n): {} for n in range(400_000)}),
        "shape of 2^60": container(huge, b"\0" * 8),
        "negative shape": container({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"\0" * 8),
        "overlapping tensors": container(
            {n: {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]} for n in ("program", "b")}, b"\0" * 8
        ),
        "dtype lie": container({"program": {"dtype": "F64", "shape": [8], "data_offsets": [0, 8]}}, b"\0" * 8),
        "unknown dtype": container({"program": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        "constant that lies about its name": legal.replace(pair.data.digest().encode(), b"0" * 64),
        "program of noise": file(bytes(range(256))),
        "program nested 10,000 deep": file(deep),
        "program of a million nodes": file(million),
        "program of four million lists": file(lists),
        "program of NaN": file(b'{"nodes":[NaN],"schema":1}'),
        "program of duplicate keys": file(b'{"nodes":[],"nodes":[],"schema":1}'),
        "program of another schema": file(b'{"nodes":[],"schema":99}'),
        "an integer of 10^6 digits": file(b'{"nodes":[' + b"9" * 1_000_000 + b'],"schema":1}'),
        "unknown node": file(program({"node": "exec", "code": "import os"})),
        "not even a node": file(program({})),
        "unknown op": experiment(pair, Op("os.system", (Ref(0),)), Save("x", Ref(1))),
        "internal op": experiment(pair, Op("_softmax", (Ref(0), 0, False)), Save("x", Ref(1))),
        "as_strided": experiment(pair, Op("as_strided", (Ref(0), (1 << 40,), (1,))), Save("x", Ref(1))),
        "op with arguments of the wrong kind": experiment(pair, Op("add.Tensor", ("x", (1, 2))), Save("x", Ref(1))),
        "op with too many arguments": experiment(pair, Op("relu", (Ref(0),) * 50), Save("x", Ref(1))),
        "op that multiplies to 2^60": experiment(
            pair, Op("expand", (Ref(0), (1 << 58, 2))), Op("neg", (Ref(1),)), Save("x", Ref(2))
        ),
        "op that makes 2^60 zeros": experiment(pair, Op("new_zeros", (Ref(0), (1 << 30, 1 << 30))), Save("x", Ref(1))),
        "operand from the future": experiment(pair, Op("neg", (Ref(7),)), Save("x", Ref(1))),
        "operand of itself": experiment(Op("neg", (Ref(0),)), Save("x", Ref(0))),
        "negative operand": file(program({"args": [{"ref": [-1, 0]}], "name": "neg", "node": "op", "nograd": False})),
        "NaN as an index": experiment(
            pair, const("float32", (1,), NAN), Op("index.Tensor", (Ref(0), (Ref(1),))), Save("x", Ref(2))
        ),
        "index out of bounds": experiment(pair, Op("select.int", (Ref(0), 0, 1 << 40)), Save("x", Ref(1))),
        "tokens that are floats": experiment(pair, run, Save("x", Ref(0))),
        "token beyond the vocabulary": experiment(
            const("int64", (1, 2), struct.pack("<2q", 1, 1 << 40)), run, Read(1, Site("embed")), Save("x", Ref(2))
        ),
        "unknown site": experiment(tokens, run, Read(1, Site("../../etc/passwd")), Save("x", Ref(2))),
        "layer that is not there": experiment(tokens, run, Read(1, Site("z", 10**9)), Save("x", Ref(2))),
        "module path with separators": experiment(
            tokens, run, Read(1, Site("module.output", path="../../x")), Save("x", Ref(2))
        ),
        "read of a run that is none": experiment(pair, Read(0, Site("embed")), Save("x", Ref(1))),
        "result named as a path": experiment(pair, Save("../../etc/passwd", Ref(0))),
        "result without a name": experiment(pair, Save("", Ref(0))),
        "two results of one name": experiment(pair, Save("x", Ref(0)), Save("x", Ref(0))),
        "view that is none": experiment(
            pair, pair, Update(Ref(0), (ViewStep("as_strided", ((9,), (1,), 100)),), Ref(1)), Save("x", Ref(2))
        ),
        "weight that is not there": file(program({"name": "__class__", "node": "param"})),
    }  # fmt: skip
