"""The file form: every experiment comes back as it was, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from counted import at_most
from fakes import Builder, floats, ints
from weft.errors import FormatError, LimitError, Location, ProgramError, WeftError
from weft.ir import nodes as n
from weft.ir.codec import BytesConstant, decode, decode_locations, encode, encode_locations
from weft.ir.constant import digest_of
from weft.ir.container import pack, unpack
from weft.ir.hash import content_hash, program_bytes
from weft.ir.limits import DEFAULT, Limits
from weft.ir.text import parse, render
from weft.ir.types import DTYPES, TensorType

WHOLE = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**31)
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
REF = st.builds(n.Ref, COUNT, st.integers(0, 3))
FLOAT = st.floats(allow_nan=False)
SCALAR = st.none() | st.booleans() | WHOLE | FLOAT | TEXT | REF | st.builds(n.Dtype, st.sampled_from(list(DTYPES)))
ARG = st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=5)
VIEW_ARG = st.none() | WHOLE | st.lists(WHOLE, max_size=3).map(tuple)
REFS, VIEW = (
    st.lists(each, max_size=3).map(tuple)
    for each in (REF, st.builds(n.ViewStep, TEXT, st.lists(VIEW_ARG, max_size=3).map(tuple)))
)
SITE = st.builds(n.Site, TEXT, st.none() | COUNT, TEXT, COUNT, TEXT)
INSIDE = st.lists(st.builds(n.Param, TEXT) | st.builds(n.Const, st.just(ints([1, 2]))), max_size=2).map(tuple)
OPTIONS = st.lists(st.tuples(TEXT, ARG), max_size=2).map(tuple)
NODE = st.one_of(
    st.builds(n.Run, TEXT, st.lists(st.tuples(TEXT, REF), max_size=2).map(tuple),
              st.lists(st.tuples(TEXT, ARG), max_size=2).map(tuple)),
    st.builds(n.Read, COUNT, SITE, st.none() | st.integers(-1, 9)),
    st.builds(n.Write, REF, VIEW, REF),
    st.builds(n.Op, TEXT, st.lists(ARG, max_size=3).map(tuple), st.booleans()),
    st.builds(n.Update, REF, VIEW, REF, st.lists(COUNT, max_size=3).map(tuple), st.booleans()),
    st.builds(n.Const, st.lists(WHOLE, min_size=1, max_size=3).map(ints)),
    st.builds(n.Param, TEXT),
    st.builds(n.Apply, TEXT, REF),
    st.builds(n.Grad, REF, REFS),
    st.builds(n.Save, TEXT, REF),
    st.builds(n.Keep, TEXT, REF),
    st.builds(n.Slot, TEXT, COUNT),
    st.builds(n.Loop, INSIDE, REFS, INSIDE, REFS, REFS, REFS, REFS, REFS, COUNT, COUNT, OPTIONS),
)  # fmt: skip
EXPERIMENT = st.lists(NODE, max_size=8).map(lambda nodes: n.Experiment(tuple(nodes)))


@given(EXPERIMENT)
@settings(max_examples=150, deadline=None)
def test_every_experiment_comes_back_from_its_file_and_its_text(experiment: n.Experiment) -> None:
    data = encode(experiment)
    assert decode(data) == experiment
    assert encode(decode(data)) == data
    assert parse(render(experiment)) == experiment


def op(*args: object) -> n.Experiment:
    return n.Experiment((n.Op("f", args),))


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 1e300, 1.0])
def test_floats_come_back_to_the_bit(value: float) -> None:
    for back in (decode(encode(op(value))), parse(render(op(value)))):
        (found,) = back.nodes[0].args
        assert struct.pack("<d", found) == struct.pack("<d", value)


def test_nan_comes_back() -> None:
    assert math.isnan(decode(encode(op(math.nan))).nodes[0].args[0])
    assert math.isnan(parse(render(op(math.nan))).nodes[0].args[0])


def test_one_true_and_one_point_nought_are_three_programs() -> None:
    assert len({content_hash(op(1)), content_hash(op(True)), content_hash(op(1.0)), content_hash(op("1"))}) == 4


def test_the_hash_is_of_the_program_and_not_of_its_lines() -> None:
    nodes = (n.Param("W_U"),)
    assert content_hash(n.Experiment(nodes)) == content_hash(n.Experiment(nodes, (Location("a.py", 3, "x"),)))
    assert content_hash(n.Experiment(nodes)) != content_hash(n.Experiment((n.Param("W_E"),)))


def test_the_hash_covers_what_constants_hold() -> None:
    one, two = (n.Experiment((n.Const(floats(2, fill=fill)),)) for fill in (1.0, 2.0))
    assert content_hash(one) != content_hash(two)


def test_equal_constants_are_stored_once() -> None:
    experiment = n.Experiment((n.Const(floats(1000)), n.Const(floats(1000)), n.Const(floats(10, 100))))
    assert len(unpack(encode(experiment), DEFAULT).tensors) == 3  # two constants, one program


def test_the_file_is_what_safetensors_writes() -> None:
    arrays = {"b": np.arange(3, dtype=np.uint8), "a": np.array([0.5]), "é": np.zeros((2, 0), dtype=np.int16)}
    ours = {name: (TensorType(str(each.dtype), each.shape), each.tobytes()) for name, each in arrays.items()}
    assert pack(ours, {"schema": "1"}) == safetensors.numpy.save(arrays, {"schema": "1"})


def test_lines_travel_beside_the_program() -> None:
    experiment = n.Experiment((n.Param("a"), n.Param("b")), (None, Location("x.py", 7, "y = run.z[5]")))
    assert decode_locations(encode_locations(experiment)) == experiment.locations


def test_what_cannot_be_written_is_refused_at_its_line() -> None:
    bad = n.Experiment((n.Op("f", ([1],)),), (Location("user.py", 3),))
    with pytest.raises(ProgramError, match=r"node 0 \(op\): expected an operand.*got list") as caught:
        encode(bad)
    assert caught.value.where == Location("user.py", 3)


# -- hostile files ---------------------------------------------------------------------------------------------------------


def small() -> n.Experiment:
    b = Builder()
    run = b.run([[1, 2, 3]])
    b.save("z", b.add(n.Op("mul.Tensor", (b.read(run, "z", 0), 2.5))))
    return b.experiment()


def with_program(program: bytes) -> bytes:
    held = unpack(encode(small()), DEFAULT)
    held.tensors["program"] = (TensorType("uint8", (len(program),)), memoryview(program))
    return pack(held.tensors, held.metadata)


def edited(old: str, new: str) -> bytes:
    program = program_bytes(small())
    assert old.encode() in program
    return with_program(program.replace(old.encode(), new.encode()))


def headed(header: str, body: bytes = b"") -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + body


def nodes(count: int, one: str = '{"name":"x","node":"param"}') -> bytes:
    return with_program(b'{"nodes":[' + b",".join([one.encode()] * count) + b'],"schema":1}')


def const(digest: str) -> str:
    return f'{{"digest":"{digest}","node":"const"}}'


def lying_bool() -> bytes:
    kind = TensorType("bool", (2,))
    digest = digest_of(kind, b"\0\7")
    program = f'{{"nodes":[{const(digest)}],"schema":1}}'.encode()
    tensors = {digest: (kind, b"\0\7"), "program": (TensorType("uint8", (len(program),)), program)}
    return pack(tensors, {"schema": "1"})


def entry(shape: str, offsets: str, name: str = "a", dtype: str = "F32") -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{offsets}]}}'


def table(*entries: str, body: bytes = b"") -> bytes:
    return headed("{" + ",".join(entries) + "}", body)


HOSTILE: dict[str, tuple[Callable[[], bytes], type[WeftError], str]] = {
    "empty": (lambda: b"", FormatError, "no safetensors file"),
    "truncated header": (lambda: encode(small())[:40], FormatError, "cut short"),
    "truncated body": (lambda: encode(small())[:-1], FormatError, "take .* bytes, but its body has"),
    "bytes after the end": (lambda: encode(small()) + b"x", FormatError, "take .* bytes, but its body has"),
    "header of 2^63 bytes": (lambda: (2**63).to_bytes(8, "little") + b"{}", LimitError, "bytes of file header"),
    "header bomb": (lambda: headed("[" * 10_000_000), FormatError, "JSON arrays"),
    "header of objects": (lambda: headed('{"a":' * 2_000_000), FormatError, "JSON objects"),
    "header nested deep": (lambda: headed('{"a":' * 10_000), FormatError, "nested 10,000 deep"),
    "header no object": (lambda: headed("[]"), FormatError, "no JSON object"),
    "header not UTF-8": (lambda: (2).to_bytes(8, "little") + b"\xff\xfe", FormatError, "is not JSON"),
    "unfinished string": (lambda: headed('"' + '\\"' * 4_000_000), FormatError, "is not JSON"),
    "many unfinished strings": (lambda: headed('"\\' * 4_000_000), FormatError, "is not JSON"),
    "duplicate tensor": (lambda: table(entry("0", "0,0"), entry("0", "0,0")), FormatError, "'a' is given twice"),
    "size that overflows": (lambda: table(entry("1073741824,1073741824", "0,0")), FormatError, "4,611,686,018"),
    "huge whole number": (lambda: table(entry("9" * 5000, "0,0")), FormatError, "JSON"),
    "negative size": (lambda: table(entry("-1", "0,0")), FormatError, "whole numbers"),
    "size that is true": (lambda: table(entry("true", "0,4"), body=b"1234"), FormatError, "whole numbers"),
    "size 1.0": (lambda: table(entry("1.0", "0,4"), body=b"1234"), FormatError, "whole numbers"),
    "dtype lie": (lambda: table(entry("2", "0,4"), body=b"1234"), FormatError, "takes 8 bytes"),
    "unknown dtype": (lambda: table(entry("", "0,8", dtype="C64")), FormatError, "'C64' is not one"),
    "hole": (lambda: table(entry("1", "4,8"), body=b"12345678"), FormatError, "begins at byte 4"),
    "overlap": (lambda: table(entry("1", "0,4"), entry("1", "0,4", "b"), body=b"1234"), FormatError, "4 was expected"),
    "extra field": (lambda: table('"a":{"dtype":"U8","shape":[],"x":1}'), FormatError, "exactly the fields"),
    "no program": (lambda: pack({}, {"schema": "1"}), FormatError, "it is no experiment"),
    "another schema": (lambda: pack({}, {"schema": "2"}), FormatError, "must be schema = 1"),
    "more metadata": (lambda: pack({}, {"schema": "1", "user": "me"}), FormatError, "also 'user'"),
    "bool that is 7": (lying_bool, FormatError, "bytes other than 0 and 1"),
    "NaN as JSON": (lambda: edited("2.5", "NaN"), FormatError, "no JSON number"),
    "Infinity as JSON": (lambda: edited("2.5", "-Infinity"), FormatError, "no JSON number"),
    "float too large": (lambda: edited("2.5", "1e999"), FormatError, "a number with a point"),
    "float as int": (lambda: edited("2.5", "2"), FormatError, "a number with a point"),
    "int as bool": (lambda: edited('["f",2.5]', '["i",true]'), FormatError, "whole number of 64 bits, got True"),
    "int of 65 bits": (lambda: edited('["f",2.5]', '["i",18446744073709551616]'), FormatError, "whole number of 64 bits"),
    "bool as int": (lambda: edited('"nograd":false', '"nograd":0'), FormatError, "true or false, got 0"),
    "bare scalar": (lambda: edited('["f",2.5]', "2.5"), FormatError, "an argument with its kind"),
    "unknown kind of argument": (lambda: edited('["f",2.5]', '["py","os.system"]'), FormatError, "of a kind r, i, f"),
    "unknown dtype argument": (lambda: edited('["f",2.5]', '["d","object"]'), FormatError, "a dtype"),
    "half a surrogate": (lambda: edited('["f",2.5]', '["s","\\ud800"]'), FormatError, "expected text"),
    "negative operand": (lambda: edited('"value":[3,0]', '"value":[-1,0]'), FormatError, "0 or more, got -1"),
    "unknown node": (lambda: edited('"node":"save"', '"node":"exec"'), FormatError, "'exec' is no kind of node"),
    "unknown field": (lambda: edited('"node":"save"', '"node":"save","mode":1'), FormatError, "differs in 'mode'"),
    "missing field": (lambda: edited(',"nograd":false', ""), FormatError, "differs in 'nograd'"),
    "duplicate key": (lambda: edited('"node":"save"', '"node":"save","node":"save"'), FormatError, "'node' is given twice"),
    "not canonical": (lambda: edited('{"nodes":', '{ "nodes":'), FormatError, "not canonical"),
    "number not canonical": (lambda: edited("2.5", "2.50"), FormatError, "not canonical"),
    "view with a float": (lambda: edited('"value":[3,0]', '"value":[3.0,0]'), FormatError, "0 or more, got 3.0"),
    "JSON of depth 10,000": (lambda: edited('["f",2.5]', '["t",' * 10_000 + "]" * 10_000), FormatError, "nested"),
    "open JSON of depth 10,000": (lambda: with_program(b"[0," * 10_000), FormatError, "nested 10,000 deep"),
    "brackets hidden in strings": (lambda: with_program(b'["]]]",' * 10_000), FormatError, "nested 10,000 deep"),
    "a million nodes": (lambda: nodes(1_000_000), LimitError, "program, but the limit is"),
    "100,001 nodes": (lambda: nodes(100_001), LimitError, "100,001 nodes in the program, but the limit is 100,000"),
    "five million lists": (lambda: with_program(b"[" + b"[]," * 5_000_000 + b"[]]"), FormatError, "JSON arrays"),
    "five million objects": (lambda: with_program(b"[" + b"{}," * 5_000_000 + b"{}]"), FormatError, "JSON objects"),
    "program of 17 MiB": (lambda: with_program(b" " * (17 << 20)), LimitError, "bytes of program"),
    "program is a number": (lambda: with_program(b"1"), FormatError, "must be an object"),
    "constant not there": (lambda: nodes(1, const("0" * 64)), FormatError, "not among the tensors"),
    "digest with a path": (lambda: nodes(1, const("../../etc/passwd")), FormatError, "64 hex digits"),
    "constant nobody uses": (lambda: nodes(1), FormatError, "used by no node"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_before_it_makes_work(name: str) -> None:
    make, error, message = HOSTILE[name]
    data = make()
    with pytest.raises(error, match=message), at_most(lines=2_000):
        decode(data)


def test_a_constant_that_is_not_what_its_name_says_is_refused() -> None:
    held = unpack(encode(small()), DEFAULT)
    digest = next(name for name in held.tensors if name != "program")
    held.tensors[digest] = (TensorType("int64", (1, 3)), memoryview(bytes(24)))
    with pytest.raises(FormatError, match="not named by the SHA-256"):
        decode(pack(held.tensors, held.metadata))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_refused_or_still_an_experiment(data: st.DataObject) -> None:
    whole = bytearray(encode(small()))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FormatError, LimitError):
        assert isinstance(decode(bytes(whole)), n.Experiment)


def test_limits_are_the_callers() -> None:
    with pytest.raises(LimitError, match="5 nodes in the program, but the limit is 4") as caught:
        decode(encode(small()), Limits(nodes=4))
    assert caught.value.details["figure"] == 5


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"files":[],"nodes":[[0,1,"x"]]}', b'{"files":["a"],"nodes":[[true,1,"x"]]}', b"[" * 10_000]
)
def test_bad_lines_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_locations(data)


def test_a_constant_needs_all_its_bytes() -> None:
    with pytest.raises(FormatError, match="cannot have 7 bytes"):
        BytesConstant(TensorType("float32", (2,)), b"1234567")


def test_a_constant_left_out_is_named_and_typed_and_the_hash_stays() -> None:
    data = floats(2, 3)
    experiment = n.Experiment((n.Const(data), n.Save("x", n.Ref(0))))
    file = encode(experiment, held={data.digest()})
    found = decode(file)
    assert found == experiment and found.nodes[0].data.type == data.type  # type: ignore[union-attr]
    assert data.tobytes() not in file and content_hash(found) == content_hash(experiment)
    assert decode(file, held=lambda kind, digest: data).nodes[0].data is data  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (b'{"abc":["float32",[2]]}', "64 hex digits"),
        (b'{"' + b"0" * 64 + b'":["float32",[-2]]}', r"must be \[dtype, \[sizes\]\]"),
        (b'{"' + b"0" * 64 + b'":["float7",[2]]}', r"must be \[dtype, \[sizes\]\]"),
        (b'{"' + b"0" * 64 + b'":["float32",[2]]}', "used by no node"),
        (b"[]", "an object of types"),
        (b'{"' + b"0" * 64 + b'":["float32",[1000000000000]]}', "bytes of constants"),
    ],
)
def test_a_list_of_constants_left_out_that_is_none(listed: bytes, words: str) -> None:
    program = program_bytes(n.Experiment((n.Const(floats(2)), n.Save("x", n.Ref(0)))))
    data = floats(2)
    parts = {
        "held": (TensorType("uint8", (len(listed),)), listed),
        "program": (TensorType("uint8", (len(program),)), program),
        data.digest(): (data.type, data.tobytes()),
    }
    with pytest.raises(WeftError, match=words):
        decode(pack(parts, {"schema": "1"}))
