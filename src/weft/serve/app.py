"""The application: `create_app(settings)` gives the ASGI app; its life begins and ends its workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from weft.errors import ModelError
from weft.serve import problems, value_routes
from weft.serve.board import Board
from weft.serve.gate import Gate
from weft.serve.host import Host, Shared
from weft.serve.jobs import Jobs
from weft.serve.keeping import Keeping
from weft.serve.metrics import Metrics
from weft.serve.routes import Service, router
from weft.serve.settings import Settings
from weft.serve.store import FolderStore
from weft.serve.submit import Desk
from weft.serve.values import Values

ABOUT = "Deep inference on models that this server holds. Experiments are data: no user's code is run."


def create_app(settings: Settings) -> FastAPI:
    """The service over HTTP. Nothing starts until the app does (its lifespan)."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        _folders(settings)
        jobs = Jobs(settings.database_url)
        store, values = FolderStore(settings.folder / "store"), Values(settings.folder / "values", settings)
        shared = Shared(settings, jobs, store, Board(), Metrics(), values, Keeping(jobs.engine))
        shared.expire()
        hosts = {spec.name: Host(spec, shared) for spec in settings.models}
        gate = Gate(settings)
        app.state.service = Service(shared, Desk(shared, gate), hosts)
        _resume(shared, hosts)
        tasks = [asyncio.create_task(host.run()) for host in hosts.values()]
        await gate.open()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await gate.close()
            jobs.close()

    app = FastAPI(title="weft", version=_version(), description=ABOUT, lifespan=lifespan)
    problems.install(app)
    app.include_router(router)
    app.include_router(value_routes.router)
    return app


def _folders(settings: Settings) -> None:
    """The server's folders; what an earlier life left half received is removed."""
    for name in ("cards", "spool", "store", "values", "partial"):
        (settings.folder / name).mkdir(parents=True, exist_ok=True)
    for left in (settings.folder / "spool").iterdir():
        left.unlink()


def _resume(shared: Shared, hosts: dict[str, Host]) -> None:
    """Jobs that were accepted in an earlier life are queued again, or their failure is reported."""
    shared.jobs.recover()
    for job in shared.jobs.waiting():
        if job.model in hosts:
            shared.board.post(job.id, state="queued")
        else:
            gone = ModelError(f"this server no longer has the model {job.model!r}; it has {', '.join(hosts)}")
            shared.jobs.finish(job.id, "failed", error=gone.to_data())


def _version() -> str:
    try:
        return version("weft")
    except PackageNotFoundError:
        return "0"
