"""The routes of values that stay: what is missing, sending it in parts, fetching it, what is kept, freeing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from weft.ir import container
from weft.ir.limits import hold
from weft.record.held import StoredConstant, gone, type_of
from weft.serve.keeping import KeptRow
from weft.serve.routes import FILE, PIECE, PROBLEMS, Caller, Service, Svc
from weft.serve.values import scope_of

router = APIRouter(responses=PROBLEMS)


class KeptOut(BaseModel):
    """A value kept under a name: its type, its digest, and when it expires if nobody uses it (seconds since the epoch)."""

    name: str
    digest: str
    dtype: str
    shape: list[int]
    nbytes: int
    created: float
    expires: float
    experiment: str


@router.post("/v1/values/missing", response_model=dict[str, int])
async def missing(
    svc: Svc, owner: Caller, model: str, digests: Annotated[list[str], Body(embed=True, max_length=100_000)]
) -> dict[str, int]:
    """Which of these values the server does not have, and how many bytes of each have come."""
    svc.host(model)
    scope = scope_of(owner, model)
    return await asyncio.to_thread(_missing, svc, scope, digests)


@router.put("/v1/values/{digest}", response_model=dict[str, int])
async def put(
    digest: str,
    request: Request,
    svc: Svc,
    owner: Caller,
    model: str,
    dtype: str,
    shape: str = "",
    offset: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, int]:
    """Send a part of a value, from byte `offset` on; it is known when it is whole. 409 says where to go on."""
    svc.host(model)
    kind = type_of(dtype, shape)
    hold(svc.shared.settings.limits, "constant_bytes", kind.nbytes)
    received, came = await svc.shared.values.receive(scope_of(owner, model), digest, kind, offset, request.stream())
    svc.shared.metrics.received.labels("values").inc(came)
    return {"received": received}


@router.get("/v1/values/{digest}", response_class=StreamingResponse)
async def get(digest: str, svc: Svc, owner: Caller, model: str, dtype: str, shape: str = "") -> Response:
    """A value: a safetensors file of one tensor, "value"."""
    found = await asyncio.to_thread(svc.shared.values.find, scope_of(owner, model), digest)
    if found is None:
        raise gone(type_of(dtype, shape), digest)
    head, _ = container.header({"value": found.type})
    length = {"Content-Length": str(len(head) + found.type.nbytes)}
    return StreamingResponse(_pieces(head, found), media_type=FILE, headers=length)


@router.get("/v1/kept", response_model=list[KeptOut])
async def kept(svc: Svc, owner: Caller, model: str) -> list[KeptOut]:
    """What is kept for a model."""
    svc.host(model)
    await asyncio.to_thread(svc.shared.expire)
    return [_out(row) for row in await asyncio.to_thread(svc.shared.keeping.all, scope_of(owner, model))]


@router.delete("/v1/kept", status_code=204, response_class=Response)
async def free(svc: Svc, owner: Caller, model: str, name: str) -> Response:
    """Free a value that was kept."""
    await asyncio.to_thread(_free, svc, scope_of(owner, model), name)
    return Response(status_code=204)


def _missing(svc: Service, scope: str, digests: list[str]) -> dict[str, int]:
    shared = svc.shared
    shared.expire()
    found = shared.values.missing(scope, digests)
    for digest in set(digests) - found.keys():
        shared.keeping.renew(scope, digest, time.time() + shared.settings.keep_seconds)
    return found


def _free(svc: Service, scope: str, name: str) -> None:
    row = svc.shared.keeping.get(scope, name)
    if not svc.shared.keeping.free(row):
        svc.shared.values.drop(scope, row.digest)


def _pieces(head: bytes, found: StoredConstant) -> Iterator[bytes]:
    yield head
    with open(found.file, "rb") as file:
        file.seek(found.begin)
        left = found.type.nbytes
        while left and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece


def _out(row: KeptRow) -> KeptOut:
    fields: dict[str, Any] = {name: getattr(row, name) for name in KeptOut.model_fields if name != "nbytes"}
    return KeptOut(nbytes=row.type.nbytes, **fields)
