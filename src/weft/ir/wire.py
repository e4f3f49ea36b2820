"""Nodes as plain JSON data, and back. One row of `FIELDS` a node kind; nothing is coerced, nothing left out.

    node    ::= {"node": kind, field: …}      every field of the node's class, no other
    ref     ::= [node, out]
    arg     ::= null | ["r", node, out] | ["i", whole number] | ["f", number or "inf", "-inf", "nan"] | ["b", truth]
              | ["s", text] | ["d", dtype] | ["t", arg…]
    site    ::= [name, layer or null, path, call, item]
    view    ::= [[op, arg…]…]                 args of whole numbers, null and tuples of whole numbers only
    loop    ::= {"node": "loop", "body": [node…], "after": [node…], …}
    const   ::= {"node": "const", "digest": 64 hex digits}

Scalars carry their kind because JSON has only one kind of number: 1 and 1.0 and true would else become one program.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple, NoReturn, TypeGuard, cast

from weft.errors import FormatError, ProgramError
from weft.ir import nodes as n
from weft.ir.strictjson import is_list, is_object
from weft.ir.types import DTYPES

WHOLE = 1 << 63
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ODD = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]


class Codec(NamedTuple):
    """How one field is written and read. Both ways are strict: the tracer's mistakes should not reach a file either."""

    encode: Encode
    decode: Decode


def wrong(given: object, expected: str) -> NoReturn:
    raise FormatError(f"expected {expected}, got {repr(given)[:80] if _small(given) else type(given).__name__}")


def is_tuple(value: object) -> TypeGuard[tuple[Any, ...]]:
    return type(value) is tuple


def _small(given: object) -> bool:
    return given is None or isinstance(given, bool | float | str) or (isinstance(given, int) and abs(given) < WHOLE)


def whole(value: Any) -> int:
    """A whole number of 64 bits, and not a truth value."""
    return value if type(value) is int and -WHOLE <= value < WHOLE else wrong(value, "a whole number of 64 bits")


def count(value: Any) -> int:
    return value if type(value) is int and 0 <= value < WHOLE else wrong(value, "a whole number, 0 or more")


def truth(value: Any) -> bool:
    return value if type(value) is bool else wrong(value, "true or false")


def text(value: Any) -> str:
    """Text that UTF-8 can hold: half a surrogate pair could not be written back."""
    try:
        cast("str", value).encode()
    except (AttributeError, UnicodeEncodeError):
        wrong(value, "text")
    return value if type(value) is str else wrong(value, "text")


def maybe(codec: Codec) -> Codec:
    """What `codec` takes, or None."""

    def either(convert: Encode) -> Encode:
        def optional(value: Any) -> Any:
            return None if value is None else convert(value)

        return optional

    return Codec(either(codec.encode), either(codec.decode))


def many(codec: Codec) -> Codec:
    """A tuple of any number of them."""
    each_out, each_in = codec

    def encode(value: Any) -> list[Any]:
        return [each_out(item) for item in value] if is_tuple(value) else wrong(value, "a tuple")

    def decode(value: Any) -> tuple[Any, ...]:
        return tuple([each_in(item) for item in value]) if is_list(value) else wrong(value, "a list")

    return Codec(encode, decode)


def row(make: Callable[..., Any], *codecs: Codec) -> Codec:
    """A tuple of fixed length, made by `make`."""
    size = len(codecs)
    encodes, decodes = [codec.encode for codec in codecs], [codec.decode for codec in codecs]

    def encode(value: Any) -> list[Any]:
        items = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else ()
        if len(items) != size:
            wrong(items or cast("object", value), f"a tuple of {size}")
        return [each(item) for each, item in zip(encodes, items, strict=True)]

    def decode(value: Any) -> Any:
        if not is_list(value) or len(value) != size:
            wrong(value, f"a list of {size}")
        return make(*[each(item) for each, item in zip(decodes, value, strict=True)])

    return Codec(encode, decode)


def _encode_ref(value: Any) -> list[int]:
    return [count(value.node), count(value.out)] if type(value) is n.Ref else wrong(value, "an operand")


def _decode_ref(value: Any) -> n.Ref:
    if is_list(value) and len(value) == 2:
        return n.Ref(count(value[0]), count(value[1]))
    wrong(value, "an operand [node, out]")


def encode_arg(value: Any) -> Any:
    """An argument with its kind."""
    kind = cast("object", type(value))
    if value is None:
        return None
    if kind is n.Ref:
        return ["r", count(value.node), count(value.out)]
    if kind is int:
        return ["i", whole(value)]
    if kind is float:
        return ["f", value if math.isfinite(value) else str(value)]
    if kind is bool:
        return ["b", value]
    if kind is str:
        return ["s", text(value)]
    if kind is n.Dtype:
        return ["d", _dtype(value.name).name]
    if kind is tuple:
        return ["t", *[encode_arg(item) for item in value]]
    wrong(value, "an operand, number, truth value, text, dtype, None or a tuple of these")


def decode_arg(value: Any) -> Any:
    if value is None:
        return None
    if not is_list(value) or not value or type(value[0]) is not str:
        wrong(value, "an argument with its kind, as [kind, value]")
    items, kind = value, value[0]
    if kind == "t":
        return tuple([decode_arg(item) for item in items[1:]])
    if kind == "r":
        return _decode_ref(items[1:])
    if len(items) != 2 or kind not in _SCALARS:
        wrong(kind, "an argument of a kind r, i, f, b, s, d or t, with one value")
    return _SCALARS[kind](items[1])


def _float(value: Any) -> float:
    if type(value) is str and value in _ODD:
        return _ODD[value]
    return value if type(value) is float and math.isfinite(value) else wrong(value, 'a number with a point, or "inf"')


def _dtype(value: Any) -> n.Dtype:
    return n.Dtype(value) if type(value) is str and value in DTYPES else wrong(value, f"a dtype: {', '.join(DTYPES)}")


_SCALARS: dict[str, Decode] = {"i": whole, "f": _float, "b": truth, "s": text, "d": _dtype}


def _view_arg(value: Any) -> Any:
    whole_numbers = is_tuple(value) and all(type(item) is int for item in value)
    if not whole_numbers and value is not None and type(value) is not int:
        wrong(value, "a view's argument: a whole number, None or a tuple of whole numbers")
    return value


def _encode_step(step: Any) -> list[Any]:
    if type(step) is not n.ViewStep or type(step.args) is not tuple:
        wrong(step, "a ViewStep")
    return [text(step.op), *[encode_arg(_view_arg(arg)) for arg in step.args]]


def _decode_step(value: Any) -> n.ViewStep:
    if not is_list(value) or not value:
        wrong(value, "a view [op, arg…]")
    return n.ViewStep(text(value[0]), tuple([_view_arg(decode_arg(arg)) for arg in value[1:]]))


WHOLE_NUMBER, COUNT, TRUTH, TEXT = (Codec(each, each) for each in (whole, count, truth, text))
REF, ARG = Codec(_encode_ref, _decode_ref), Codec(encode_arg, decode_arg)
REFS, VIEW = many(REF), many(Codec(_encode_step, _decode_step))
ARGS, LAYOUT = many(ARG), many(COUNT)
SITE = row(n.Site, TEXT, maybe(COUNT), TEXT, COUNT, TEXT)
INPUTS = many(row(lambda *pair: pair, TEXT, REF))
OPTIONS = many(row(lambda *pair: pair, TEXT, ARG))


def _encode_inner(node: Any) -> Any:
    return encode_node(node)


def _no_constants(data: Any) -> Any:
    return decode_node(data, {})


BODY = many(Codec(_encode_inner, _no_constants))  # decode_node gives the constants

FIELDS: dict[str, tuple[type, dict[str, Codec]]] = {
    "run": (n.Run, {"kind": TEXT, "inputs": INPUTS, "options": OPTIONS}),
    "read": (n.Read, {"run": COUNT, "site": SITE, "step": maybe(WHOLE_NUMBER)}),
    "write": (n.Write, {"prev": REF, "view": VIEW, "value": REF}),
    "op": (n.Op, {"name": TEXT, "args": ARGS, "nograd": TRUTH}),
    "update": (n.Update, {"base": REF, "view": VIEW, "value": REF, "layout": LAYOUT, "nograd": TRUTH}),
    "param": (n.Param, {"name": TEXT}),
    "apply": (n.Apply, {"part": TEXT, "arg": REF}),
    "grad": (n.Grad, {"of": REF, "wrt": REFS}),
    "loop": (
        n.Loop,
        {
            "body": BODY,
            "results": REFS,
            "after": BODY,
            "projected": REFS,
            "carried": REFS,
            "state": REFS,
            "tables": REFS,
            "order": REFS,
            "start": COUNT,
            "steps": COUNT,
            "options": OPTIONS,
        },
    ),
    "slot": (n.Slot, {"kind": TEXT, "index": COUNT}),
    "save": (n.Save, {"name": TEXT, "value": REF}),
    "keep": (n.Keep, {"name": TEXT, "value": REF}),
}
KIND_OF: dict[type, str] = {cls: kind for kind, (cls, _) in FIELDS.items()} | {n.Const: "const"}
_KEYS = {kind: frozenset({"node", *codecs}) for kind, (_, codecs) in FIELDS.items()}
assert all([each.name for each in fields(cls)] == list(codecs) for cls, codecs in FIELDS.values())


def encode_node(node: n.Node) -> dict[str, Any]:
    """A node as plain data; FormatError if a field holds what cannot be written."""
    if type(node) is n.Const:
        return {"node": "const", "digest": node.data.digest()}
    if type(node) not in KIND_OF:
        raise ProgramError(f"{type(node).__name__} is no kind of node; the kinds are {', '.join(KIND_OF.values())}")
    kind = KIND_OF[type(node)]
    data: dict[str, Any] = {name: codec.encode(getattr(node, name)) for name, codec in FIELDS[kind][1].items()}
    data["node"] = kind
    return data


def decode_node(data: Any, constants: Mapping[str, n.ConstantData]) -> n.Node:
    """The node that `data` describes, its constant looked up in `constants`."""
    if not is_object(data):
        wrong(data, "a node as an object")
    found, kind = data, data.get("node")
    if kind == "const":
        return n.Const(_constant(found, constants))
    if type(kind) is not str or kind not in FIELDS:
        raise FormatError(f"{str(kind)[:40]!r} is no kind of node; the kinds are {', '.join(KIND_OF.values())}")
    if found.keys() != _KEYS[kind]:
        odd = ", ".join(repr(name[:40]) for name in sorted(found.keys() ^ _KEYS[kind])[:5])
        raise FormatError(f"a {kind!r} node has the fields {', '.join(sorted(_KEYS[kind]))}; it differs in {odd}")
    cls, codecs = FIELDS[kind]
    if cls is n.Loop:

        def inner(each: Any) -> n.Node:
            return decode_node(each, constants)

        body = many(Codec(_encode_inner, inner))
        codecs = {name: body if codec is BODY else codec for name, codec in codecs.items()}
    return cls(*[codec.decode(found[name]) for name, codec in codecs.items()])


def _constant(found: dict[str, Any], constants: Mapping[str, n.ConstantData]) -> n.ConstantData:
    digest = found.get("digest")
    if found.keys() != {"node", "digest"} or type(digest) is not str or not _DIGEST.fullmatch(digest):
        raise FormatError("a node of kind 'const' has exactly the fields node and digest (64 hex digits)")
    if digest not in constants:
        raise FormatError(f"the constant sha256:{digest[:12]}… is named by the program but is not among the tensors")
    return constants[digest]
