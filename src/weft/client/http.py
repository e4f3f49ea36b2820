"""Requests to one server, with its errors raised again as weft's own."""

from __future__ import annotations

import time
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from weft.errors import FormatError, RefusedError, ServiceError, UnreachableError, WeftError, from_data

LOADING_SECONDS = 120.0
"""How long to wait for a model that its server is still loading."""


@dataclass(frozen=True)
class Http:
    """One server by its URL; `key` is sent with every request; a test may put a `transport` of its own underneath."""

    url: str
    key: str | None = field(default=None, repr=False)
    transport: httpx.BaseTransport | None = field(default=None, repr=False, compare=False)
    client: httpx.Client = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # No proxy of the environment stands between a client and a loopback server.
        trusted = not self.url.startswith(("http://127.", "http://localhost", "http://[::1]"))
        timeout = httpx.Timeout(60.0, connect=10.0)
        client = httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=trusted, transport=self.transport
        )
        object.__setattr__(self, "client", client)
        # A notebook never closes anything: connections end with the last client or job that uses them.
        weakref.finalize(self, client.close)

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        """The answer to a request; a problem document is raised as the error it holds."""
        until = time.monotonic() + LOADING_SECONDS
        while True:
            with self._reaching():
                response = self.client.request(method, path, **given)
            if response.is_success:
                return response
            error = error_of(response)
            if not error.details.get("loading") or time.monotonic() > until:
                raise error
            time.sleep(0.2)

    @contextmanager
    def stream(self, path: str) -> Generator[httpx.Response]:
        """An answer that comes bit by bit."""
        timeout = httpx.Timeout(60.0, connect=10.0)
        with self._reaching(), self.client.stream("GET", path, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise error_of(response)
            yield response

    @contextmanager
    def _reaching(self) -> Generator[None]:
        try:
            yield
        except httpx.InvalidURL as error:
            raise UnreachableError(f"{self.url!r} is not a URL ({error}); give e.g. http://127.0.0.1:7787") from None
        except httpx.TransportError as error:
            raise UnreachableError(
                f"no weft server answers at {self.url} ({error}); start one with `weft serve MODEL`, or check the URL",
                url=self.url,
            ) from error


def error_of(response: httpx.Response) -> WeftError:
    """The error in a problem document; whatever else was answered becomes a ServiceError that quotes it."""
    try:
        problem: Any = response.json()
        data = {"code": problem["code"], "message": problem["detail"]}
        return from_data(data | {"where": problem.get("where"), "details": problem.get("details")})
    except (ValueError, KeyError, TypeError):
        kind = RefusedError if response.is_client_error else ServiceError
        status, quoted = response.status_code, response.text[:200]
        return kind(f"{response.request.url} answered {status}, not as a weft server does: {quoted!r}", status=status)


def json_of(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise FormatError(f"{response.request.url} did not answer with JSON ({error}); is it a weft server?") from None
