"""The service's routes. Each says what it does and leaves the doing to desk, hosts, table and store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from weft.errors import JobCancelledError, NotFoundError, RefusedError, ServiceError, WeftError, from_data
from weft.record import tensors
from weft.record.format import results_of
from weft.serve.board import News
from weft.serve.host import Host, Shared, cancel_waiting
from weft.serve.jobs import FINAL, JobRow
from weft.serve.problems import Problem
from weft.serve.settings import is_loopback
from weft.serve.submit import Desk, too_large
from weft.serve.values import scope_of

PIECE = 1 << 20
FILE = "application/vnd.safetensors"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "A problem document (RFC 9457) with weft's error code"}
}
router = APIRouter(responses=PROBLEMS)


class JobOut(BaseModel):
    """A job as its owner sees it."""

    id: str
    model: str
    experiment: str
    plan: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    fraction: float
    stage: str
    attempts: int
    submitted: float
    started: float | None
    finished: float | None
    record: str | None
    error: dict[str, Any] | None


class ModelOut(BaseModel):
    """A model that this server has, or is loading."""

    name: str
    state: Literal["loading", "ready", "restarting", "failed"]
    fingerprint: dict[str, Any]
    worker: int | None
    error: dict[str, Any] | None


class Service:
    """What the routes use; one to an application."""

    def __init__(self, shared: Shared, desk: Desk, hosts: dict[str, Host]) -> None:
        self.shared, self.desk, self.hosts = shared, desk, hosts

    def host(self, name: str) -> Host:
        """The host of a model that can take experiments."""
        if name not in self.hosts:
            raise NotFoundError(
                f"this server has no model {name!r}; it has {', '.join(self.hosts) or 'none'}", model=name
            )
        host = self.hosts[name]
        if host.error is not None:
            raise ServiceError(
                f"the model {name!r} could not be loaded on the server: {host.error.message}", model=name
            )
        if host.card_file is None:
            raise ServiceError(f"the model {name!r} is still being loaded; try again", model=name, loading=True)
        return host

    async def job(self, job: str) -> JobRow:
        return await asyncio.to_thread(self.shared.jobs.get, job)

    def out(self, row: JobRow) -> JobOut:
        news = self.shared.board.get(row.id) or news_of(row)
        return JobOut(
            id=row.id, model=row.model, experiment=row.experiment, plan=row.plan, state=row.state,  # pyright: ignore[reportArgumentType]
            fraction=news.fraction if news.state == row.state else news_of(row).fraction,
            stage=news.stage if news.state == row.state else "",
            attempts=row.attempts, submitted=row.submitted, started=row.started, finished=row.finished,
            record=row.record, error=row.error,
        )  # fmt: skip


def service(request: Request) -> Service:
    return request.app.state.service


def caller(request: Request) -> str | None:
    """Who asks. There are no keys yet, only loopback: everybody is the machine's owner (None).

    But for web pages: one that the owner happens to visit can send requests here too, under a name of its own.
    """
    for header in ("host", "origin"):
        given = request.headers.get(header, "")
        host = urlsplit(given if "//" in given else f"//{given}").hostname
        if given and not is_loopback(host or ""):
            text = f"this server answers its own machine only, not the {header} {given!r}; use http://127.0.0.1:PORT"
            raise RefusedError(text, status=403)
    return None


Svc = Annotated[Service, Depends(service)]
Caller = Annotated[str | None, Depends(caller)]


def news_of(row: JobRow) -> News:
    """What the table knows of a job, for one that the board has forgotten."""
    return News(row.state, 1.0 if row.state == "done" else 0.0, "", row.error, row.record)


@router.post("/v1/experiments", status_code=202, response_model=JobOut)
async def submit(
    request: Request,
    response: Response,
    svc: Svc,
    owner: Caller,
    model: str,
    plan: Literal["auto", "reference"] = "auto",
    fresh: bool = False,
    locations: Annotated[int, Query(ge=0)] = 0,
) -> JobOut:
    """Submit an experiment: its safetensors file as the body.

    The last `locations` bytes of the body are not part of the file: they are the user's lines (JSON), so that an error
    can point at them. The same experiment on the same model is the same job (200 if it is done) unless `fresh`.
    """
    try:
        host, limit = svc.host(model), svc.shared.settings.body_bytes
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise too_large(int(announced), limit)
        job, new = await svc.desk.accept(
            host, request.stream(), plan=plan, locations=locations, fresh=fresh, owner=owner
        )
    except WeftError as error:
        svc.shared.metrics.refused.labels(error.code).inc()
        raise
    if new:
        host.wake()
    response.status_code = 200 if job.state == "done" else 202
    response.headers["Location"] = f"/v1/experiments/{job.id}"
    return svc.out(job)


@router.get("/v1/experiments/{job}", response_model=JobOut)
async def status(job: str, svc: Svc, _: Caller) -> JobOut:
    """A job's state and how far it is."""
    return svc.out(await svc.job(job))


@router.get("/v1/experiments/{job}/events", response_class=StreamingResponse)
async def events(job: str, svc: Svc, _: Caller) -> StreamingResponse:
    """Server-sent events, each named by the job's state (queued, running, done, failed, cancelled), until it ends.

    Every event holds the whole of what is known (JSON), so that a reader who comes back has missed nothing; of a loop's
    history (`rows`: step, loss, metrics) those not sent yet in this stream, which begins with all there are.
    """
    row = await svc.job(job)

    async def stream() -> AsyncIterator[str]:
        number = sent = 0
        async for news in svc.shared.board.watch(job, news_of(row)):
            if news is None:
                yield ": still here\n\n"
                continue
            number += 1
            data = {"id": job, "state": news.state, "fraction": news.fraction, "stage": news.stage}
            rows = svc.shared.board.rows(job, sent)
            sent += len(rows)
            data |= {"error": news.error, "record": news.record, "rows": rows}
            yield f"id: {number}\nevent: {news.state}\ndata: {json.dumps(data)}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get("/v1/experiments/{job}/result", response_class=StreamingResponse)
async def result(job: str, svc: Svc, _: Caller) -> Response:
    """The results of a job that is done: one safetensors file, a tensor a saved value."""
    row = finished(await svc.job(job))
    head, parts = await asyncio.to_thread(_results, svc, row)
    size = len(head) + sum(part.end - part.begin for part in parts)

    def pieces() -> Iterator[bytes]:
        yield head
        with svc.shared.store.open(row.record_file) as file:
            for part in parts:
                file.seek(part.begin)
                for at in range(part.begin, part.end, PIECE):
                    yield file.read(min(PIECE, part.end - at))

    return _file(row, pieces(), size)


@router.get("/v1/experiments/{job}/record", response_class=StreamingResponse)
async def record(job: str, svc: Svc, _: Caller, partial: bool = False) -> Response:
    """The record of a job that is done: program, model, versions, counts and results in one safetensors file.

    `partial`: of a job that runs, or ended early, the record of what it has so far (404 if there is none): the steps
    done of a loop, the saved values that are known of anything else.
    """
    row = await svc.job(job)
    if partial and row.state == "running":
        return await asyncio.to_thread(_so_far, svc, row)
    if partial and row.record is None:
        raise NotFoundError(f"job {job} is {row.state} and has nothing that was done by then", job=job)
    row = row if partial else finished(row)
    _held(svc, row)

    def pieces() -> Iterator[bytes]:
        with svc.shared.store.open(row.record_file) as file:
            while piece := file.read(PIECE):
                yield piece

    return _file(row, pieces(), None)


@router.delete("/v1/experiments/{job}/result", status_code=204, response_class=Response)
async def forget(job: str, svc: Svc, _: Caller) -> Response:
    """Drop the record and the results of a job that is done. The same experiment would be run again."""
    row = finished(await svc.job(job))
    if row.record is not None:
        await asyncio.to_thread(_forget, svc.shared, row, row.record)
    if svc.shared.board.get(job) is not None:
        svc.shared.board.post(job, record=None)
    return Response(status_code=204)


@router.delete("/v1/experiments/{job}", status_code=202, response_model=JobOut)
async def cancel(job: str, svc: Svc, _: Caller) -> JobOut:
    """Cancel a job, waiting or running. One that has ended stays as it is: 409."""
    if await cancel_waiting(svc.shared, job):
        return svc.out(await svc.job(job))
    row = await svc.job(job)
    if row.state in FINAL:
        raise RefusedError(f"job {job} is {row.state} already; there is nothing to cancel", job=job, state=row.state)
    if row.model in svc.hosts:
        svc.hosts[row.model].cancel(job)
    return svc.out(row)


@router.get("/v1/models", response_model=list[ModelOut])
async def models(svc: Svc, _: Caller) -> list[ModelOut]:
    """The models of this server."""
    return [_model(host) for host in svc.hosts.values()]


@router.get("/v1/models/{name:path}/card", response_class=Response)
async def card(name: str, svc: Svc, _: Caller) -> Response:
    """Everything about a model but its weights: sizes, sites, modules, weights by name, tokenizer."""
    return Response(svc.host(name).card, media_type="application/json")


@router.get("/healthz", response_model=dict[str, Any])
async def health(svc: Svc) -> dict[str, Any]:
    """Whether the server answers, and the state of each model."""
    return {"status": "ok", "models": {name: host.state for name, host in svc.hosts.items()}}


@router.get("/metrics", response_class=Response)
async def metrics(svc: Svc) -> Response:
    """Counts and times in Prometheus' text form."""
    return Response(svc.shared.metrics.text(), media_type="text/plain; version=0.0.4")


def finished(row: JobRow) -> JobRow:
    """The job, if it is done; else its own error, or that it is not done yet."""
    if row.state == "done":
        return row
    if row.state == "failed":
        raise from_data(row.error or {})
    if row.state == "cancelled":
        raise JobCancelledError(f"job {row.id} was cancelled and has no results; submit it again", job=row.id)
    raise RefusedError(f"job {row.id} is {row.state}; wait until it is done", job=row.id, state=row.state)


def _model(host: Host) -> ModelOut:
    error = None if host.error is None else host.error.to_data()
    return ModelOut(
        name=host.spec.name, state=cast(Any, host.state), fingerprint=host.fingerprint, worker=host.worker, error=error
    )  # pyright: ignore[reportArgumentType]


def _results(svc: Service, row: JobRow) -> tuple[bytes, list[tensors.Part]]:
    _held(svc, row)
    with svc.shared.store.open(row.record_file) as file:
        return results_of(tensors.layout(file))


def _forget(shared: Shared, row: JobRow, record: str) -> None:
    """The job's record goes, unless another job has the same one; with it what was known of its results."""
    if not shared.jobs.forget(row.id, record) and shared.store.has(row.record_file):
        shared.values.drop_results(scope_of(row.owner, row.model), shared.store.local(row.record_file))
        shared.store.delete(row.record_file)


def _so_far(svc: Service, row: JobRow) -> Response:
    path = svc.shared.settings.folder / "partial" / f"{row.id}.safetensors"
    try:
        return Response(path.read_bytes(), media_type=FILE)
    except OSError:
        raise NotFoundError(f"job {row.id} has nothing to show yet; ask again later", job=row.id) from None


def _held(svc: Service, row: JobRow) -> None:
    if not svc.shared.store.has(row.record_file):
        raise NotFoundError(
            f"the record of job {row.id} is no longer on the server; submit the experiment again", job=row.id
        )


def _file(row: JobRow, pieces: Iterator[bytes], size: int | None) -> Response:
    headers = {"ETag": f'"{row.record}"'} | ({} if size is None else {"Content-Length": str(size)})
    return StreamingResponse(pieces, media_type=FILE, headers=headers)
