"""The real engine behind the real server: a planted model, compared with the same experiment run here."""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import numpy as np
import pytest

from weft import planted
from weft.client import connect
from weft.errors import ShapeError, SiteError
from weft.execute import run
from weft.ir.constant import BytesConstant
from weft.ir.nodes import Const, Experiment, Op, Read, Ref, Run, Save, Site, ViewStep, Write
from weft.ir.types import TensorType
from weft.models import load
from weft.record import decode_record, describe, encode_record
from weft.record.build import value
from weft.record.replay import replay

NAME = "planted/induction"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    from weft.serve import background

    with background([NAME], tmp_path_factory.mktemp("planted")) as url:
        yield url


@pytest.fixture(scope="module")
def loaded():
    planted.register()
    return load(NAME)


def tokens(*rows: list[int]) -> Const:
    flat = [each for row in rows for each in row]
    return Const(BytesConstant(TensorType("int64", (len(rows), len(rows[0]))), struct.pack(f"<{len(flat)}q", *flat)))


def steered(scale: float = 2.0) -> Experiment:
    """Logits of one prompt with the first layer's stream scaled at its last position."""
    nodes = (
        tokens([1, 2, 3, 1, 2]),
        Run("tokens", (("tokens", Ref(0)),)),
        Read(1, Site("resid_post", 0)),
        Op("select.int", (Ref(2), 1, -1)),
        Op("mul.Scalar", (Ref(3), scale)),
        Write(Ref(2), (ViewStep("select.int", (1, -1)),), Ref(4)),
        Read(1, Site("logits")),
        Save("logits", Ref(6)),
    )
    return Experiment(nodes)


def test_the_server_gives_what_running_here_gives(url, loaded):
    remote = connect(url).submit(NAME, steered()).wait().result()["logits"]
    here = value(run(loaded, steered()).values["logits"])
    assert remote.type == here.type
    np.testing.assert_allclose(np.asarray(remote), np.asarray(here), rtol=1e-5, atol=1e-5)


def test_a_record_from_the_server_replays_here(url, loaded):
    record = connect(url).submit(NAME, steered()).wait().record()
    comparison = replay(record, loaded)
    assert comparison.same_model and comparison.agrees(1e-5), str(comparison)


def test_a_record_is_read_as_it_was_written_and_its_hash_is_checked(url):
    from weft.errors import FormatError

    record = connect(url).submit(NAME, steered()).wait().record()
    data = encode_record(record)
    assert decode_record(data) == record
    changed = data.replace(b'"asked":1', b'"asked":2')
    with pytest.raises(FormatError, match="was changed"):
        decode_record(changed)


def test_a_record_for_people_names_all_that_matters(url):
    record = connect(url).submit(NAME, steered()).wait().record()
    text = describe(record)
    assert all(each in text for each in (record.hash, record.experiment_hash, "1 asked, 1 applied", "resid_post[0]"))


def test_an_illegal_experiment_is_refused_before_it_is_accepted(url):
    bad = Experiment((*steered().nodes[:2], Read(1, Site("z", 99)), Save("x", Ref(2))))
    with pytest.raises(SiteError, match=r"z\[99\]"):
        connect(url).submit(NAME, bad)


def test_shapes_that_do_not_fit_are_refused_without_torch(url):
    bad = Experiment((*steered().nodes[:3], Op("add.Tensor", (Ref(2), Ref(0))), Save("x", Ref(3))))
    with pytest.raises(ShapeError):
        connect(url).submit(NAME, bad)


def test_a_killed_worker_comes_back_with_the_same_model(url):
    client = connect(url)
    worker, first = client.models()[0]["worker"], client.submit(NAME, steered(3.0)).wait()
    os.kill(worker, signal.SIGKILL)
    again = client.submit(NAME, steered(3.0), fresh=True).wait()
    assert again.status().record == first.status().record


def test_the_card_is_the_models_own(url, loaded):
    assert connect(url).card(NAME) == loaded.card


def test_the_server_has_no_torch(url):
    worker = connect(url).models()[0]["worker"]
    server = int(Path(f"/proc/{worker}/stat").read_text().split()[3])
    assert "libtorch" in Path(f"/proc/{worker}/maps").read_text()
    assert "torch" not in Path(f"/proc/{server}/maps").read_text()
