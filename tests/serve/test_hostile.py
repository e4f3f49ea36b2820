"""Whatever is posted, the answer is a 4xx problem document, and everything stays up."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from helpers import saving
from hostile import corpus

from weft.client import connect

CORPUS = corpus()


@pytest.fixture(scope="module")
def worker(url):
    return connect(url).models()[0]["worker"]


def post(url: str, body: bytes, **query: object) -> httpx.Response:
    return httpx.post(f"{url}/v1/experiments", params={"model": "fake", **query}, content=body, timeout=20)


def rss(pid: int) -> int:
    """Resident bytes of a process, at its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_body_is_refused(url, worker, name):
    answer = post(url, CORPUS[name])
    problem = answer.json()
    assert 400 <= answer.status_code < 500, problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code and problem["code"] and problem["detail"]
    assert connect(url).models()[0]["worker"] == worker


@pytest.mark.parametrize("trailer", [-1, 10, 1 << 40, "x"])
def test_a_trailer_that_is_none_is_refused(url, trailer):
    from weft.ir.codec import encode

    assert 400 <= post(url, encode(saving("double", 1)), locations=trailer).status_code < 500


def test_a_body_over_the_limit_is_refused_with_the_figure_and_the_limit(tmp_path):
    from helpers import fake

    from weft.serve import background

    with background([fake(tmp_path)], tmp_path, body_bytes=1 << 20) as url:
        announced = post(url, b"\0" * (2 << 20))
        chunked = httpx.post(f"{url}/v1/experiments?model=fake", content=(b"\0" * 65536 for _ in range(32)))
    assert announced.status_code == chunked.status_code == 413
    assert "takes at most 1,048,576" in announced.json()["detail"]


def test_an_address_that_is_none_is_a_problem_document_too(url):
    answer = httpx.get(f"{url}/v1/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert httpx.put(f"{url}/v1/models").json()["status"] == 405


def test_the_server_stays_small_and_without_torch(tmp_path):
    import os

    from helpers import fake

    from weft.serve.launch import await_ready, start

    process, url, alive = start([fake(tmp_path)], tmp_path)
    try:
        await_ready(url, process, 60)
        for body in CORPUS.values():
            post(url, body)
        assert rss(process.pid) < 400 << 20
        assert "torch" not in Path(f"/proc/{process.pid}/maps").read_text()
    finally:
        process.terminate()
        process.wait(10)
        os.close(alive)
