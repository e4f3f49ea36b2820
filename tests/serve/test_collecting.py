"""Collections through a server: to the client's disk as they come, taken up again after whatever ended them."""

from __future__ import annotations

import os
import random

import pytest
import torch
from helpers import NAME

import weft
from weft.client import job
from weft.collect import batches, run
from weft.errors import JobCancelledError, UnreachableError
from weft.serve import background
from weft.serve.launch import await_ready, start


def ragged(count: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(60) for _ in range(draw.randrange(1, 20))] for _ in range(count)]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(batches, "WINDOW_PROMPTS", 20)
    monkeypatch.setattr(batches, "MOST_TOKENS", 60)
    monkeypatch.setattr(run, "SHARD_BYTES", 400_000)


@pytest.fixture
def served(real):
    return real


def same(found: weft.Collection, expected: weft.Collection) -> None:
    assert found.complete and found.sites == expected.sites
    assert torch.equal(found.prompt_of, expected.prompt_of) and torch.equal(found.position_of, expected.position_of)
    for site in expected.sites:
        torch.testing.assert_close(found.read(site), expected.read(site), rtol=1e-5, atol=1e-5)


@pytest.fixture
def expected(small, tmp_path):
    return weft.load(NAME).collect(ragged(50), "resid_post", to=tmp_path / "here")


def test_it_is_the_same_as_here_and_nothing_stays_on_the_server(served, expected, tmp_path):
    url, folder = served
    before = {*(folder / "store").rglob("*.safetensors"), *(folder / "values").rglob("*.json")}
    same(weft.connect(url).model(NAME).collect(ragged(50), "resid_post", to=tmp_path / "there"), expected)
    assert {*(folder / "store").rglob("*.safetensors"), *(folder / "values").rglob("*.json")} == before
    assert not list((folder / "store" / "bodies").glob("*"))


def test_a_server_that_goes_away_and_comes_back(small, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PATIENCE", 1.0)
    process, url, alive = start([NAME], tmp_path / "first")
    await_ready(url, process, 60)

    def prompts():
        for number, row in enumerate(ragged(50)):
            if number == 45:
                process.kill()
                process.wait()
            yield row

    with pytest.raises(UnreachableError, match=r"\d+ prompts are collected and kept .*; call collect again"):
        weft.connect(url).model(NAME).collect(prompts(), "resid_post", to=tmp_path / "there")
    os.close(alive)
    kept = weft.Collection(tmp_path / "there")
    assert 20 <= kept.prompts < 50 and not kept.complete
    with background([NAME], tmp_path / "second") as url:
        found = weft.connect(url).model(NAME).collect(ragged(50), "resid_post", to=tmp_path / "there")
    same(found, expected)


def test_a_job_cancelled_by_somebody_keeps_what_is_done_and_says_so(served, small, expected, tmp_path, monkeypatch):
    url, _ = served
    model = weft.connect(url).model(NAME)
    begin, count = type(model.backend).begin, [0]

    def cancelling(self, experiment):
        pending = begin(self, experiment)
        count[0] += 1
        if count[0] == 8:
            self.client.job(pending.job.id).cancel()
            pending.values = lambda: (_ for _ in ()).throw(JobCancelledError("job was cancelled"))
        return pending

    monkeypatch.setattr(type(model.backend), "begin", cancelling)
    with pytest.raises(JobCancelledError, match=r"[1-9]\d* prompts are collected and kept"):
        model.collect(ragged(50), "resid_post", to=tmp_path / "there")
    monkeypatch.undo()
    for name, value in (("WINDOW_PROMPTS", 20), ("MOST_TOKENS", 60)):
        monkeypatch.setattr(batches, name, value)
    monkeypatch.setattr(run, "SHARD_BYTES", 400_000)
    same(model.collect(ragged(50), "resid_post", to=tmp_path / "there"), expected)


def test_stopping_cancels_what_is_under_way(served, small, tmp_path):
    url, _ = served
    client = weft.connect(url)

    def prompts():
        yield from ragged(50)[:45]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stopped:
        client.model(NAME).collect(prompts(), "resid_post", to=tmp_path / "c")
    assert "prompts are collected and kept" in "".join(stopped.value.__notes__)
