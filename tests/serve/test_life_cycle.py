"""A job's life over real HTTP: submitted, watched, done, fetched, cancelled, failed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from helpers import saving

from weft.client import connect
from weft.errors import (
    ExecutionError,
    JobCancelledError,
    NotFoundError,
    RefusedError,
    ShapeError,
    UnreachableError,
)
from weft.ir.hash import content_hash


def test_a_job_gives_its_results(url):
    job = connect(url).submit("fake", saving("double", 1, 2.5)).wait()
    assert np.asarray(job.result()["double"]).tolist() == [2.0, 5.0]


def test_a_job_is_found_again_by_its_id(url):
    job = connect(url).submit("fake", saving("double", 3)).wait()
    assert np.asarray(connect(url).job(job.id).result()["double"]).tolist() == [6.0]


def test_the_record_says_what_ran_on_what(url):
    experiment = saving("double", 4)
    job = connect(url).submit("fake", experiment).wait()
    record = job.record()
    assert (record.experiment, record.fingerprint["id"]) == (experiment, "fake")
    assert record.hash == job.status().record


def test_events_tell_of_progress_and_the_end(url):
    job = connect(url).submit("fake", saving("sleep", 0.4))
    seen = list(job.events())
    assert seen[-1].state == "done"
    assert len({each.fraction for each in seen if each.state == "running"}) > 2


def test_the_same_experiment_is_answered_from_its_record(url):
    client = connect(url)
    first = client.submit("fake", saving("double", 5)).wait()
    assert client.submit("fake", saving("double", 5)).id == first.id


def test_fresh_runs_it_again_to_the_same_record(url):
    client = connect(url)
    first = client.submit("fake", saving("double", 6)).wait()
    again = client.submit("fake", saving("double", 6), fresh=True).wait()
    assert again.id != first.id
    assert again.status().record == first.status().record


def test_a_running_job_is_cancelled(url):
    job = connect(url).submit("fake", saving("sleep", 60))
    next(each for each in job.events() if each.state == "running")
    job.cancel()
    with pytest.raises(JobCancelledError, match="was cancelled"):
        job.wait()


def test_a_waiting_job_is_cancelled_and_the_running_one_is_not(url):
    client = connect(url)
    running, waiting = client.submit("fake", saving("sleep", 1)), client.submit("fake", saving("sleep", 61))
    assert waiting.cancel().state == "cancelled"
    assert running.wait().status().state == "done"


def test_a_job_that_has_ended_is_not_cancelled(url):
    job = connect(url).submit("fake", saving("double", 7)).wait()
    with pytest.raises(RefusedError, match="done already"):
        job.cancel()


def test_an_error_is_raised_again_at_the_users_line(url):
    job = connect(url).submit("fake", saving("wrong", 1))
    with pytest.raises(ShapeError, match=r"do not fit") as caught:
        connect(url).job(job.id).wait()
    assert str(caught.value.where) == "mine.py:7\n    x.save('wrong')"


def test_an_error_that_is_not_wefts_is_named_and_leaves_the_worker_alive(url):
    client = connect(url)
    worker = client.models()[0]["worker"]
    with pytest.raises(ExecutionError, match="RuntimeError: CUDA error"):
        client.submit("fake", saving("torch", 1)).wait()
    assert client.models()[0]["worker"] == worker


def test_results_before_the_end_are_refused_and_say_so(url):
    job = connect(url).submit("fake", saving("sleep", 62))
    with pytest.raises(RefusedError, match="wait until it is done"):
        job.result()
    job.cancel()


def test_two_clients_at_once_each_get_their_own(url):
    found: dict[int, list[float]] = {}

    def one(number: int) -> None:
        job = connect(url).submit("fake", saving("double", 100 + number)).wait()
        found[number] = np.asarray(job.result()["double"]).tolist()

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [2.0 * (100 + number)] for number in range(8)}


def test_the_card_is_the_models(url):
    from fake_engine import CARD

    assert connect(url).card("fake") == CARD


def test_unknown_names_are_said_to_be_unknown(url):
    client = connect(url)
    with pytest.raises(NotFoundError, match="no model 'gpt9'; it has fake"):
        client.card("gpt9")
    with pytest.raises(NotFoundError, match="no job 'nope'"):
        client.job("nope")


def test_no_server_names_the_url_and_the_way_out():
    with pytest.raises(UnreachableError, match=r"http://127.0.0.1:9 .*weft serve"):
        connect("http://127.0.0.1:9")


def test_the_job_names_the_experiments_hash(url):
    import httpx

    experiment = saving("double", 8)
    job = connect(url).submit("fake", experiment)
    assert httpx.get(f"{url}/v1/experiments/{job.id}").json()["experiment"] == content_hash(experiment)
