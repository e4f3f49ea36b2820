"""Accepted means it will be run, or its failure reported: across a kill -9 of either process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import fake, saving

from weft.client import connect
from weft.errors import ExecutionError, JobCancelledError, ModelError
from weft.serve import ModelSpec, background
from weft.serve.launch import await_ready, start


@contextmanager
def server(spec: ModelSpec, folder: Path) -> Iterator[tuple[str, int]]:
    """A server and its process id, killed with -9 at the end of the block."""
    process, url, alive = start([spec], folder)
    try:
        await_ready(url, process, 60)
        yield url, process.pid
    finally:
        process.kill()
        process.wait()
        os.close(alive)


def test_a_job_whose_worker_is_killed_runs_again(url):
    job = connect(url).submit("fake", saving("die", 1.5))
    assert np.asarray(job.wait().result()["die"]).tolist() == [1.5]


def test_a_worker_killed_from_outside_in_the_middle_of_a_job(url):
    client = connect(url)
    job = client.submit("fake", saving("sleep", 1.5))
    next(each for each in job.events() if each.state == "running" and each.fraction > 0.1)
    worker = client.models()[0]["worker"]
    os.kill(worker, signal.SIGKILL)
    assert np.asarray(job.wait().result()["sleep"]).tolist() == [1.5]
    assert client.models()[0]["worker"] != worker


def test_a_job_that_kills_every_worker_fails_after_its_attempts(url):
    client = connect(url)
    with pytest.raises(ExecutionError, match=r"killed by signal 9 .* 3 times"):
        client.submit("fake", saving("doom", 1)).wait()
    assert np.asarray(client.submit("fake", saving("double", 1)).wait().result()["double"]).tolist() == [2.0]


def test_a_worker_that_does_not_stop_is_killed_and_the_job_is_cancelled(tmp_path):
    with background([fake(tmp_path, name="stuck")], tmp_path, cancel_seconds=0.2) as url:
        client = connect(url)
        job = client.submit("stuck", saving("sleep", 30))
        worker = client.models()[0]["worker"]
        next(each for each in job.events() if each.state == "running")
        os.kill(worker, signal.SIGSTOP)
        job.cancel()
        with pytest.raises(JobCancelledError):
            job.wait()


def test_jobs_outlive_a_killed_server(tmp_path):
    spec = fake(tmp_path)
    with server(spec, tmp_path) as (url, _):
        client = connect(url)
        running, waiting = client.submit("fake", saving("sleep", 2)), client.submit("fake", saving("double", 9))
        next(each for each in running.events() if each.fraction > 0)
    with server(spec, tmp_path) as (url, _):
        client = connect(url)
        assert np.asarray(client.job(waiting.id).wait().result()["double"]).tolist() == [18.0]
        assert client.job(running.id).wait().status().state == "done"


def test_a_job_for_a_model_that_is_another_now_is_refused(tmp_path):
    with server(fake(tmp_path), tmp_path) as (url, _):
        client = connect(url)
        client.submit("fake", saving("sleep", 30))
        waiting = client.submit("fake", saving("double", 1))
    changed = pytest.raises(ModelError, match="was changed on the server")
    with server(fake(tmp_path, weights="w1"), tmp_path) as (url, _), changed:
        connect(url).job(waiting.id).wait()


def test_a_worker_ends_with_its_server(tmp_path):
    with server(fake(tmp_path), tmp_path) as (url, _):
        worker = connect(url).models()[0]["worker"]
    assert _gone(worker)


def test_a_server_ends_with_its_parent(tmp_path):
    process, url, alive = start([fake(tmp_path)], tmp_path)
    await_ready(url, process, 60)
    os.close(alive)  # what the death of the parent does
    assert process.wait(20) == 0


def test_a_model_that_cannot_be_loaded_says_why(tmp_path):
    with pytest.raises(ModelError, match="has no weights"), background([fake(tmp_path, source="broken")], tmp_path):
        pass


def _gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.02)
    return False
