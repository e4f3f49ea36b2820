"""What is known of a job that has not ended, or ended early: without a loop, its saved values one by one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from held_engine import held
from tests.tiny import tiny_gpt2

import weft
from weft import models
from weft.client import connect
from weft.errors import ExecutionError, JobCancelledError, NotFoundError
from weft.ir.nodes import Experiment
from weft.serve import ModelSpec, background
from weft.worker.engine import Ask
from weft.worker.partial import Stopped

ROWS = [torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6]]), torch.tensor([[7, 8, 9]])]
NAMES = ["first", "second", "third"]


def three_runs() -> Experiment:
    """The logits of three runs, each saved."""
    with weft.load(tiny_gpt2(1)).session() as s:
        for name, row in zip(NAMES, ROWS, strict=True):
            s.run(row).logits.save(name)
    return s.experiment


def logits(row: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return tiny_gpt2(1)(row).logits


def spec(folder: Path) -> ModelSpec:
    os.mkfifo(folder / "gate")
    return ModelSpec("held", "", "held_engine:load", {"gate": str(folder / "gate")})


def seen(server, job) -> dict[str, torch.Tensor]:
    """What there is of a running job, once there is anything."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            return server.job(job.id).partial()
        except NotFoundError:
            time.sleep(0.05)
    raise AssertionError("nothing was shown")


def test_the_first_value_is_seen_before_the_second_is_there(tmp_path):
    with background([spec(tmp_path)], tmp_path) as url:
        job = connect(url).submit("held", three_runs(), plan="reference")
        found = seen(weft.connect(url), job)
        assert job.status().state == "running"
        assert list(found) == ["first"]
        assert torch.allclose(found["first"], logits(ROWS[0]), atol=1e-5)
        (tmp_path / "gate").write_bytes(b"")
        assert sorted(job.wait(progress=False).result()) == NAMES
        assert not list((tmp_path / "partial").iterdir())


def test_what_was_known_of_a_cancelled_job_is_kept_and_said(tmp_path):
    with background([spec(tmp_path)], tmp_path, cancel_seconds=0.1) as url:
        job = connect(url).submit("held", three_runs(), plan="reference")
        seen(weft.connect(url), job)
        job.cancel()
        with pytest.raises(JobCancelledError, match=r"was cancelled; what it had done by then is kept"):
            job.wait(progress=False)
        found = weft.connect(url).job(job.id).partial()
        assert list(found) == ["first"]
        assert torch.allclose(found["first"], logits(ROWS[0]), atol=1e-5)


def broken() -> None:
    raise RuntimeError("a cable was pulled")


def test_a_worker_that_stops_in_time_has_all_that_was_known():
    asked: list[bool] = []
    with pytest.raises(Stopped) as caught:
        held([[4, 5, 6]], lambda: asked.append(True)).record(
            three_runs(), Ask("reference", cancelled=lambda: bool(asked))
        )
    assert isinstance(caught.value.error, JobCancelledError)
    assert list(caught.value.record.results) == ["first", "second"]
    value = caught.value.record.results["second"]
    array = np.frombuffer(value.tobytes(), np.float32).reshape(value.type.shape)
    assert np.allclose(array, logits(ROWS[1]).numpy(), atol=1e-5)


def test_a_failed_job_has_what_was_known_before_it_failed():
    with pytest.raises(Stopped) as caught:
        held([[7, 8, 9]], broken).record(three_runs(), Ask("reference"))
    assert "a cable was pulled" in str(caught.value.error)
    assert list(caught.value.record.results) == ["first", "second"]


def test_a_failure_before_anything_is_known_is_only_that():
    with pytest.raises(RuntimeError, match="a cable"):
        held([[1, 2, 3]], broken).record(three_runs(), Ask("reference"))


def test_the_error_of_a_failed_job_says_what_is_kept(tmp_path):
    with background([spec(tmp_path)], tmp_path) as url:
        job = connect(url).submit("held", three_runs(), plan="reference")
        (tmp_path / "gate").write_bytes(b"fail")
        with pytest.raises(ExecutionError, match=r"a cable was pulled; what it had done by then is kept"):
            job.wait(progress=False)
        assert list(weft.connect(url).job(job.id).partial()) == ["first"]


def test_a_planned_run_tells_its_values_with_its_passes():
    from weft.execute import run

    told: dict[str, torch.Tensor] = {}
    with weft.load(tiny_gpt2(1)).session() as s:
        base = s.run(torch.cat(ROWS))
        base.logits.save("base")
        edited = s.run(torch.cat(ROWS))
        edited.resid_post[1][:, -1] = 0
        edited.logits.save("edited")
    outcome = run(models.load(tiny_gpt2(1)), s.experiment, known=told.__setitem__)
    assert outcome.plan == "planned"
    assert sorted(told) == ["base", "edited"]
    assert all(torch.equal(told[name], outcome.values[name]) for name in told)


def test_a_job_of_less_than_a_second_writes_nothing(tmp_path):
    three = three_runs()
    record = held([[0]], broken).record(three, Ask("reference", partial=str(tmp_path / "partial")))
    assert sorted(record.results) == NAMES
    assert not list(tmp_path.iterdir())
