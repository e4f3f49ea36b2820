"""Start a server: here (`run`), or as a child of this process for as long as a block lasts (`background`).

serve.run(["bobbin"], port=7787)

with serve.background(models=["planted/induction"]) as url:
    model = weft.connect(url).model("planted/induction")
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.errors import ModelError, RefusedError, ServiceError
from weft.serve.settings import ModelSpec, Settings, refuse_open_bind

HOST, PORT = "127.0.0.1", 7787


def run(
    models: Sequence[str | ModelSpec],
    host: str = HOST,
    port: int = PORT,
    folder: str | Path | None = None,
    *,
    announce: Callable[[str], object] = str,
    sock: socket.socket | None = None,
    alive: int | None = None,
    **settings: Any,
) -> None:
    """Serve `models` until interrupted. `settings` are the other fields of Settings.

    `announce` is told the URL as soon as the port is ours. `sock` is a socket that listens already; `alive` a pipe
    whose end means that this server's parent is gone.
    """
    refuse_open_bind(host)
    import uvicorn

    from weft.serve.app import create_app

    made = Settings(tuple(spec_of(each) for each in models), folder_of(folder), **settings)
    config = uvicorn.Config(
        create_app(made), host=host, port=port, log_level="warning", timeout_graceful_shutdown=1, lifespan="on"
    )
    server = uvicorn.Server(config)
    if alive is not None:
        threading.Thread(target=_watch, args=(alive, server), daemon=True).start()
    with sock or listen(host, port) as listening:
        name = f"[{host}]" if ":" in host else host
        announce(f"http://{name}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])


@contextmanager
def background(
    models: Sequence[str | ModelSpec], folder: str | Path | None = None, *, wait: float = 120.0, **settings: Any
) -> Generator[str]:
    """A real server as a subprocess on a free loopback port; its URL, once every model is ready.

    It ends with the block, and also if this process dies. Without `folder` its jobs and records go with it.
    """
    with tempfile.TemporaryDirectory(prefix="weft-") as temporary:
        process, url, alive = start(models, folder or temporary, **settings)
        try:
            await_ready(url, process, wait)
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(alive)


def start(
    models: Sequence[str | ModelSpec], folder: str | Path, **settings: Any
) -> tuple[subprocess.Popen[bytes], str, int]:
    """Start a server on a free port: its process, its URL, and the pipe it lives by (closing it ends the server)."""
    with socket.create_server((HOST, 0)) as listening:
        reading, alive = os.pipe()
        given = {"models": [asdict(spec_of(each)) for each in models], "folder": str(folder), "settings": settings}
        arguments = ["--socket", str(listening.fileno()), "--alive", str(reading), "--given", json.dumps(given)]
        command = [sys.executable, "-m", "weft.serve", *arguments]
        process = subprocess.Popen(command, pass_fds=[listening.fileno(), reading], stdin=subprocess.DEVNULL)
        os.close(reading)
        return process, f"http://{HOST}:{listening.getsockname()[1]}", alive


def await_ready(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    """Return when every model is ready; ModelError with the reason if one cannot be loaded."""
    import httpx

    until, states = time.monotonic() + seconds, {}
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ServiceError(
                f"the server ended with status {process.returncode} before it answered; its output says why"
            )
        try:
            states = httpx.get(f"{url}/healthz", timeout=2).json()["models"]
        except httpx.TransportError:
            states = {"server": "starting"}
        if all(state == "ready" for state in states.values()):
            return
        if "failed" in states.values():
            failed = next(each for each in httpx.get(f"{url}/v1/models").json() if each["error"])
            raise ModelError(f"the server could not load {failed['name']!r}: {failed['error']['message']}")
        time.sleep(0.05)
    raise ServiceError(f"the server at {url} was not ready after {seconds:g} s: {states}")


def spec_of(model: str | ModelSpec) -> ModelSpec:
    return ModelSpec(model) if isinstance(model, str) else model


def folder_of(folder: str | Path | None) -> Path:
    """Where a server keeps its jobs and records, when it is told nothing."""
    return (Path(folder) if folder else Path.home() / ".weft" / "server").absolute()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; RefusedError if something else does already."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        text = f"weft cannot serve on {host}:{port} ({error.strerror}); give another port, or 0 for any free one"
        raise RefusedError(text, host=host, port=port) from None


def _watch(alive: int, server: Any) -> None:
    """Stop the server when the other end of the pipe is gone."""
    os.read(alive, 1)
    server.should_exit = True
