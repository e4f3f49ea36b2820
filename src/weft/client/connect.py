"""A server, as its client sees it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from weft.client.http import Http, json_of
from weft.client.job import Job
from weft.client.values import Values
from weft.errors import WeftError
from weft.ir.card import Card
from weft.ir.nodes import Experiment
from weft.record.locations import pointed, trailer


def connect(url: str, key: str | None = None) -> Client:
    """The server at `url`, which must answer; UnreachableError if none does."""
    client = Client(Http(url.rstrip("/"), key))
    client.models()
    return client


@dataclass(frozen=True)
class Client:
    """A connection to a server. `submit` sends an experiment; `job` finds one again, from anywhere."""

    http: Http

    @property
    def url(self) -> str:
        return self.http.url

    def models(self) -> list[dict[str, Any]]:
        """The server's models: name, state, fingerprint."""
        return json_of(self.http.request("GET", "/v1/models"))

    def card(self, name: str) -> Card:
        """A model's card, asked for once."""
        from weft.ir.cardjson import card_from_json

        if name not in self._cards:
            self._cards[name] = card_from_json(self.http.request("GET", f"/v1/models/{name}/card").content)
        return self._cards[name]

    def submit(self, name: str, experiment: Experiment, fresh: bool = False, plan: str = "auto") -> Job:
        """Send an experiment to model `name`: its job, which may be done already if it was asked before."""
        from weft.ir.codec import encode

        lines = trailer(experiment)
        query = {"model": name, "plan": plan, "fresh": fresh, "locations": len(lines)}
        try:
            held = self.values(name).send(experiment)
            body = encode(experiment, held) + lines
            answer = self.http.request("POST", "/v1/experiments", params=query, content=body)
        except WeftError as error:
            raise pointed(error, experiment) from None
        return Job(self.http, json_of(answer)["id"], experiment)

    def values(self, name: str) -> Values:
        """The values that stay on the server for model `name`."""
        return Values(self.http, name)

    def job(self, id: str) -> Job:
        """The job of this id, whoever submitted it; NotFoundError if the server has none."""
        job = Job(self.http, id)
        job.status()
        return job

    def close(self) -> None:
        self.http.client.close()

    @cached_property
    def _cards(self) -> dict[str, Card]:
        return {}
