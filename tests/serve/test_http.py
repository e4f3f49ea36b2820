"""What the service says to those who are no weft client, and what the client does when the road is bad."""

from __future__ import annotations

import io
import json

import httpx
import pytest
from helpers import fake, saving

from weft.client import connect
from weft.client.http import Http
from weft.client.job import Job
from weft.errors import RefusedError, ServiceError, UnreachableError
from weft.serve import run


def test_openapi_lists_the_routes(url):
    paths = httpx.get(f"{url}/openapi.json").json()["paths"]
    assert {"/v1/experiments", "/v1/experiments/{job}/events", "/v1/models", "/healthz", "/metrics"} <= paths.keys()


def test_metrics_count_what_was_done(url):
    connect(url).submit("fake", saving("double", 77)).wait()
    text = httpx.get(f"{url}/metrics").text
    assert 'weft_ended_total{model="fake",state="done"} 1.0' in text


def test_health_names_each_model_and_its_state(url):
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "models": {"fake": "ready"}}


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_a_web_page_cannot_use_a_loopback_server(url, headers):
    answer = httpx.get(f"{url}/v1/models", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "refused")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_another_address_than_loopback_is_refused_with_the_way_out(host, tmp_path):
    with pytest.raises(RefusedError, match="ssh -L"):
        run([fake(tmp_path)], host=host, folder=tmp_path)


def test_a_problem_document_carries_code_line_and_details(url):
    job = connect(url).submit("fake", saving("wrong", 5))
    list(job.events())
    problem = httpx.get(f"{url}/v1/experiments/{job.id}/result").json()
    assert (problem["type"], problem["status"], problem["where"]["line"]) == ("urn:weft:error:shape", 422, 7)


def status(state: str, fraction: float = 0.0) -> dict[str, object]:
    return {"state": state, "fraction": fraction, "stage": "", "error": None, "record": None}


def test_a_stream_that_breaks_is_taken_up_again():
    streams = [iter([status("running", 0.1)]), iter([status("running", 0.7), status("done", 1.0)])]

    def answer(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=status("running", 0.5))
        events = "".join(f"data: {json.dumps(each)}\n\n" for each in streams.pop(0))
        return httpx.Response(200, text=events)

    job = Job(Http("http://127.0.0.1:1", transport=httpx.MockTransport(answer)), "j")
    assert [each.fraction for each in job.events()] == [0.1, 0.5, 0.7, 1.0]


def test_without_any_stream_the_job_is_asked_after():
    answers = iter([status("queued"), status("done", 1.0)])

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            raise httpx.ReadError("proxy")
        return httpx.Response(200, json=next(answers))

    job = Job(Http("http://127.0.0.1:1", transport=httpx.MockTransport(answer)), "j")
    assert [each.state for each in job.events()] == ["queued", "done"]


def test_a_server_that_is_gone_is_said_to_be_gone(monkeypatch):
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr("weft.client.job.PATIENCE", 0.0)
    job = Job(Http("http://127.0.0.1:1", transport=httpx.MockTransport(answer)), "j")
    with pytest.raises(UnreachableError, match="weft serve"):
        job.wait()


def test_an_answer_that_is_not_wefts_is_quoted():
    http = Http("http://127.0.0.1:1", transport=httpx.MockTransport(lambda _: httpx.Response(502, text="<html>")))
    with pytest.raises(ServiceError, match=r"answered 502, not as a weft server does: '<html>'"):
        http.request("GET", "/v1/models")


def test_a_port_that_is_taken_is_refused_with_the_way_out(url, tmp_path):
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(RefusedError, match="give another port"):
        run([fake(tmp_path)], port=port, folder=tmp_path)


def test_a_terminal_sees_how_far_it_is(monkeypatch):
    from weft.client.progress import Bar

    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    with Bar() as bar:
        bar.show("running", 0.5, "layer 6")
    assert "running: layer 6" in terminal.getvalue() and "50%" in terminal.getvalue()


def test_a_file_is_spared_the_progress_bar(monkeypatch):
    from weft.client.progress import Bar

    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    with Bar() as bar:
        bar.show("running", 0.5, "layer 6")
    assert log.getvalue() == ""
