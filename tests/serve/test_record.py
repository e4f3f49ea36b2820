"""Records and the messages between server and worker, without either."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers import saving

from weft.errors import FormatError, ShapeError
from weft.ir.hash import content_hash
from weft.ir.outcome import Edits
from weft.ir.types import TensorType
from weft.record import Record, Value, compare, decode_record, decode_results, encode_record, encode_results, show
from weft.record.format import results_of
from weft.record.locations import pointed, read_body, trailer
from weft.record.messages import (
    KINDS,
    Done,
    Failed,
    Progress,
    Ready,
    decode_message,
    encode_message,
    frame_lengths,
    read_message,
)
from weft.record.tensors import layout


def value(*numbers: float) -> Value:
    return Value(TensorType("float32", (len(numbers),)), struct.pack(f"<{len(numbers)}f", *numbers))


def record(**changes) -> Record:
    experiment = saving("x", 1, 2)
    made = Record(
        experiment, content_hash(experiment), {"id": "m", "weights": "ab"}, {"torch": "2"}, "cpu", "float32", "auto",
        {"x": value(1, 2)}, edits=Edits(2, 1, 1), seeds=(7,), work={"passes": 3}, started=1e9, seconds=0.5,
    )  # fmt: skip
    return replace(made, **changes)


def test_a_record_survives_its_file():
    assert decode_record(encode_record(record())) == record()


def test_a_records_name_is_what_was_found_and_not_when():
    assert record(started=0.0, seconds=9.0, work={}).hash == record().hash
    assert record(results={"x": value(1, 3)}).hash != record().hash
    assert record(seeds=(8,)).hash != record().hash


def test_a_changed_result_is_noticed():
    data = encode_record(record()).replace(struct.pack("<f", 2.0), struct.pack("<f", 3.0))
    with pytest.raises(FormatError):
        decode_record(data)


def test_a_file_that_is_no_record_says_what_it_holds():
    with pytest.raises(FormatError, match=r"no record: it holds \['x'\]"):
        decode_record(encode_results({"x": value(1)}))


def test_results_can_be_cut_from_a_records_file_without_reading_it_all():
    data = encode_record(record(results={"b": value(1, 2), "a": Value(TensorType("bool", (1,)), b"\1")}))
    head, parts = results_of(layout(io.BytesIO(data)))
    found = decode_results(head + b"".join(data[part.begin : part.end] for part in parts))
    assert np.asarray(found["b"]).tolist() == [1, 2] and np.asarray(found["a"]).tolist() == [True]


def test_bfloat16_is_widened_for_numpy():
    assert np.asarray(Value(TensorType("bfloat16", (1,)), b"\xc0\x3f")).tolist() == [1.5]


def test_comparing_gives_the_largest_difference_of_each_value():
    then, now = record(results={"x": value(1, -4)}), record(results={"x": value(1.5, -3)})
    (difference,) = compare(then, now).differences
    assert (difference.largest, difference.scale, difference.relative) == (1.0, 4.0, 1 / 4)


def test_equal_infinities_and_nans_are_no_difference_and_a_lone_one_is():
    inf, nan = float("inf"), float("nan")
    same, lone = value(inf, nan, 1), value(1, nan, 1)
    assert compare(record(results={"x": same}), record(results={"x": same})).largest == 0
    assert compare(record(results={"x": same}), record(results={"x": lone})).largest == inf


def test_another_model_is_named():
    comparison = compare(record(), record(fingerprint={"id": "m", "weights": "cd"}))
    assert comparison.model == (("weights", "ab", "cd"),) and not comparison.agrees()
    assert "model   weights was ab, is cd" in str(comparison)


def test_show_prints_a_record_and_an_experiment(tmp_path):
    from weft.ir.codec import encode

    (tmp_path / "r").write_bytes(encode_record(record()))
    (tmp_path / "e").write_bytes(encode(record().experiment))
    assert f"record      {record().hash}" in show(tmp_path / "r")
    assert "x: float32[2] = [1., 2.]" in show(tmp_path / "r")
    assert show(tmp_path / "e").startswith(f"experiment  {record().experiment_hash}")


@pytest.mark.parametrize(
    "message", [Ready({"id": "m"}, b"\0\1"), Done("j", "ab", 1.5), Failed("j", ShapeError("no").to_data())]
)
def test_a_message_survives_its_frame(message):
    assert read_message(io.BytesIO(encode_message(message)).read) == message


def test_a_stream_that_ends_inside_a_frame_is_an_end():
    frame = encode_message(Progress("j", 0.5, "layer 6"))
    assert [read_message(io.BytesIO(frame[:cut]).read) for cut in (0, 5, len(frame) - 1)] == [None, None, None]


def test_a_frame_that_announces_too_much_is_refused():
    with pytest.raises(FormatError, match="announces"):
        frame_lengths(struct.pack("<IQ", 1 << 31, 0))


@pytest.mark.parametrize("header", [b"[]", b"{}", b'{"kind":"Exec"}', b'{"kind":"Done","x":1}', b"\xff"])
def test_what_is_no_message_is_refused(header):
    with pytest.raises(FormatError, match="not a message"):
        decode_message(header)


def test_every_message_has_a_name_of_its_own():
    assert all(KINDS[name].__name__ == name for name in KINDS)


def test_lines_travel_behind_the_experiment_and_errors_find_them():
    from weft.ir.codec import encode

    lines = trailer(saving("x", 1))
    experiment = read_body(encode(saving("x", 1)) + lines, len(lines))
    assert str(pointed(ShapeError("no", node=1), experiment).where) == "mine.py:7\n    x.save('x')"


@pytest.mark.parametrize("module", ["weft.serve.app", "weft.serve.checker", "weft.client", "weft.record", "weft.serve"])
def test_no_torch_is_loaded(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
