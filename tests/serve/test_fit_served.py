"""Training on a server: the same numbers in one job, and nothing learned is lost whatever happens to it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "cpu"))
from fit_losses import exchange, masked, start_of
from fit_models import largest_angle, pairs, planted_plane
from tests.tiny import tiny_gpt2

import weft
from weft.client.http import Http
from weft.errors import ExecutionError, JobCancelledError, NotFoundError, UnreachableError
from weft.serve import ModelSpec, background


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    planted_plane()[0].save_pretrained(folder / "plane")
    tiny_gpt2(1).save_pretrained(folder / "tiny")
    specs = [ModelSpec(name, str(folder / name)) for name in ("plane", "tiny")]
    with background(specs, tmp_path_factory.mktemp("server")) as url:
        yield url


def jobs_done(url: str) -> float:
    """How many jobs the server has ended."""
    import httpx

    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("weft_ended_total"))


def test_das_on_a_server_is_one_job_and_the_same_numbers(url: str) -> None:
    given = {"steps": 500, "lr": 0.05, "batch_size": 64, "project": "orthogonal"}
    here, there, rows = start_of(16), start_of(16), []
    local = weft.load(planted_plane()[0]).fit(exchange(here, 0), {"R": here}, pairs(128), **given)
    model, before = weft.connect(url).model("plane"), jobs_done(url)
    fit = model.fit(exchange(there, 0), {"R": there}, pairs(128), on_metrics=rows.append, **given)
    assert jobs_done(url) == before + 1
    assert torch.allclose(fit.loss, local.loss, rtol=0, atol=1e-5)
    assert torch.allclose(here, there, rtol=0, atol=1e-4)
    assert largest_angle(there, planted_plane()[1]) < 5
    assert [row["step"] for row in rows] == list(range(500))
    assert torch.equal(torch.tensor([row["loss"] for row in rows], dtype=torch.float64), fit.loss)


def test_a_mask_on_a_server_is_the_same(url: str) -> None:
    here, there = torch.full((2, 3), 0.5), torch.full((2, 3), 0.5)
    given = {"steps": 20, "lr": 0.05, "batch_size": 8, "project": ("clamp", 0, 1)}
    weft.load(tiny_gpt2(1)).fit(masked(here, 0.1), here, pairs(24, tokens=17), **given)
    fit = weft.connect(url).model("tiny").fit(masked(there, 0.1), there, pairs(24, tokens=17), **given)
    assert torch.allclose(here, there, rtol=0, atol=1e-6)
    assert fit.record.hash


def blowing_up(vector: torch.Tensor):
    """A loss that is no number once the vector has gone below -1: at the 12th step of 0.1."""

    def loss(s, batch):
        run = s.run(batch)
        run.resid_post[0][:, -1] += vector
        return (1.05 + vector.mean()).sqrt() + 0 * run.logits.sum()

    return loss


def test_a_loss_that_is_no_number_on_a_server_keeps_what_was_learned(url: str) -> None:
    here, there = torch.zeros(12), torch.zeros(12)
    tokens = torch.ones(2, 3, dtype=torch.long)
    for model, vector in ((weft.load(tiny_gpt2(1)), here), (weft.connect(url).model("tiny"), there)):
        with pytest.raises(ExecutionError, match=r"the loss is nan at step \d+.*is kept") as caught:
            model.fit(blowing_up(vector), vector, tokens, steps=50, lr=0.1)
        assert 5 < caught.value.fit.steps < 30
        assert torch.equal(caught.value.fit.params["param"], vector)
    assert float(there.mean()) < -0.9
    assert torch.allclose(here, there)


def test_cancelling_keeps_what_was_learned_and_says_so(url: str) -> None:
    model, vector = weft.connect(url).model("tiny"), torch.zeros(12)
    jobs = noted(model)

    def cancel(row):
        if row["step"] > 50 and len(told) == 0:
            told.append(row)
            jobs[0].cancel()

    told: list = []
    with pytest.warns(UserWarning, match="cancelled"):
        fit = model.fit(moved(vector), vector, TOKENS, steps=100_000, lr=0.01, on_metrics=cancel)
    assert 50 < fit.steps < 100_000
    assert "cancelled" in fit.stopped
    assert float(vector.abs().min()) > 0
    assert len(fit.loss) == fit.steps
    again = weft.connect(url).job(jobs[0].id)
    assert torch.equal(again.partial()["param"], vector)
    with pytest.raises(JobCancelledError):
        again.result()
    assert weft.replay(fit.record, weft.load(tiny_gpt2(1))).largest < 1e-3  # of just the steps done


def moved(vector: torch.Tensor):
    """A vector added at the last position, and one logit."""

    def loss(s, batch):
        run = s.run(batch)
        run.resid_post[0][:, -1] += vector
        return run.logits[:, -1, 3].mean()

    return loss


TOKENS = torch.arange(6).reshape(2, 3)


def test_ctrl_c_cancels_the_job_and_keeps_what_was_learned(url: str, tmp_path: Path) -> None:
    model, vector, told = weft.connect(url).model("tiny"), torch.zeros(12), []

    def interrupt(row):
        told.append(row["step"])
        if row["step"] == 40:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="fit was stopped"):
        fit = model.fit(
            moved(vector), vector, TOKENS, steps=90_000, lr=0.01, on_metrics=interrupt, checkpoint=tmp_path / "kept"
        )
    assert 40 < fit.steps < 90_000
    assert told == sorted(set(told))
    assert vector.all()
    rest = vector.clone()
    more = model.fit(moved(rest), rest, TOKENS, steps=fit.steps + 5, lr=0.01, resume=tmp_path / "kept")
    assert more.steps == len(more.loss) == fit.steps + 5
    assert not torch.equal(rest, vector)


def test_a_killed_workers_training_is_gone_on_with_by_the_next(url: str) -> None:
    model, vector, killed = weft.connect(url).model("tiny"), torch.zeros(12), []
    jobs = noted(model)

    def kill(row):
        if row["step"] > 200 and not killed and written(jobs[0]):
            names = {each["name"]: each["worker"] for each in model.backend.client.models()}
            killed.append(row["step"])
            os.kill(names["tiny"], signal.SIGKILL)

    fit = model.fit(moved(vector), vector, TOKENS, steps=3000, lr=0.001, on_metrics=kill)
    here = torch.zeros(12)
    local = weft.load(tiny_gpt2(1)).fit(moved(here), here, TOKENS, steps=3000, lr=0.001)
    assert killed
    assert fit.steps == len(fit.loss) == 3000
    assert fit.outcome.work["passes"] < 3000 <= local.outcome.work["passes"]  # the second worker did not begin anew
    assert torch.allclose(vector, here, atol=1e-4)
    assert torch.allclose(fit.loss, local.loss, atol=1e-4)


def test_a_lost_connection_loses_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, vector, down = weft.connect(url).model("tiny"), torch.zeros(12), []
    jobs = noted(model)
    request, stream = Http.request, Http.stream

    def broken(of):
        def call(*args, **kwargs):
            if down:
                raise UnreachableError("no weft server answers")
            return of(*args, **kwargs)

        return call

    monkeypatch.setattr(Http, "request", broken(request))
    monkeypatch.setattr(Http, "stream", broken(stream))
    monkeypatch.setattr("weft.client.job.PATIENCE", 0.0)

    def cut(row):
        if row["step"] > 20:
            down.append(row)
            raise UnreachableError("the connection was reset")

    before = jobs_done(url)
    with pytest.raises(UnreachableError, match="goes on there: call fit again in the same way"):
        model.fit(moved(vector), vector, TOKENS, steps=900, lr=0.01, on_metrics=cut)
    assert not vector.any()
    down.clear()
    fit = model.fit(moved(vector), vector, TOKENS, steps=900, lr=0.01)
    assert fit.steps == 900 and vector.all()
    assert jobs[0].id == jobs[1].id
    assert jobs_done(url) == before + 1


def noted(model) -> list:
    """The jobs that a model's client submits, as it submits them."""
    jobs, submit = [], model.backend.client.submit

    def submitted(*args, **kwargs):
        jobs.append(submit(*args, **kwargs))
        return jobs[-1]

    object.__setattr__(model.backend.client, "submit", submitted)
    return jobs


def written(job) -> bool:
    """Whether the server has a record of the steps so far."""
    try:
        return job.partial().results["_done"].type.dtype == "int64"
    except NotFoundError:
        return False
