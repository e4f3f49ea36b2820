"""Values that stay on a server: large constants sent once, in parts; results and kept values named by digest.

values = client.values("bobbin")
held = values.send(experiment)          # digests of the constants that need not be in the experiment's body
values.kept()                           # what is kept under names
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from weft.client.http import Http, json_of
from weft.client.progress import Bar
from weft.errors import RefusedError, UnreachableError
from weft.ir.codec import constants_of
from weft.ir.constant import NamedConstant
from weft.ir.nodes import ConstantData, Experiment
from weft.ir.outcome import Kept
from weft.ir.types import TensorType
from weft.record import decode_results
from weft.record.held import gone

LEAST = 1 << 14
"""Bytes of a constant that is worth asking for: smaller ones are sent with the program."""
PART = 8 << 20
TRIES = 5
"""How often in a row a part may fail to arrive before the upload is given up."""


@dataclass(frozen=True, eq=False)
class RemoteConstant(NamedConstant):
    """A value on a server, fetched when its numbers are asked for."""

    values: Values | None = None
    elsewhere: ClassVar[bool] = False

    def tobytes(self) -> bytes:
        assert self.values is not None
        return self.values.fetch(self.type, self.name)


@dataclass(frozen=True)
class Values:
    """The values of one model on one server, for one key."""

    http: Http
    model: str

    def send(self, experiment: Experiment) -> set[str]:
        """See that the server has the experiment's large constants; their digests."""
        large = {
            digest: data
            for digest, data in constants_of(experiment).items()
            if data.type.nbytes >= LEAST or isinstance(data, NamedConstant)
        }
        if not large:
            return set()
        query, digests = {"model": self.model}, {"digests": sorted(large)}
        missing: dict[str, int] = json_of(self.http.request("POST", "/v1/values/missing", params=query, json=digests))
        for digest, have in missing.items():
            self._upload(digest, large[digest], have)
        return set(large)

    def fetch(self, kind: TensorType, digest: str) -> bytes:
        """The bytes of a value that is there."""
        shape = ",".join(map(str, kind.shape))
        query = {"model": self.model, "dtype": kind.dtype, "shape": shape}
        return decode_results(self.http.request("GET", f"/v1/values/{digest}", params=query).content)["value"].tobytes()

    def kept(self) -> list[Kept]:
        """What is kept under names, by name."""
        rows: list[dict[str, Any]] = json_of(self.http.request("GET", "/v1/kept", params={"model": self.model}))
        return [
            Kept(row["name"], self.constant(_type(row), row["digest"]), row["created"], row["expires"]) for row in rows
        ]

    def free(self, name: str) -> None:
        """Free a value; NotFoundError if nothing is kept under that name."""
        self.http.request("DELETE", "/v1/kept", params={"model": self.model, "name": name})

    def constant(self, kind: TensorType, digest: str) -> RemoteConstant:
        """The value of that digest, to be used in an experiment without being sent."""
        return RemoteConstant(kind, digest, self)

    def _upload(self, digest: str, data: ConstantData, have: int) -> None:
        """Send the rest of a constant, part after part; a part that did not arrive is sent again from where it broke off."""
        if isinstance(data, RemoteConstant) and data.values == self:
            raise gone(data.type, digest)
        raw = memoryview(data.tobytes())
        kind, failed = data.type, 0
        shape = ",".join(map(str, kind.shape))
        with Bar(len(raw) > PART) as bar:
            while True:
                bar.show("uploading", have / max(len(raw), 1), f"{kind}")
                before = have
                query = {"model": self.model, "dtype": kind.dtype, "shape": shape, "offset": have}
                piece = _pieces(raw[have : have + PART])
                try:
                    answer = self.http.request("PUT", f"/v1/values/{digest}", params=query, content=piece)
                    have = int(json_of(answer)["received"])
                except RefusedError as error:
                    if "received" not in error.details:
                        raise
                    have = int(error.details["received"])
                except UnreachableError:
                    have = self._there(digest, len(raw), failed)
                failed = 0 if have > before else failed + 1
                if have >= len(raw):
                    return
                if failed > TRIES:
                    raise UnreachableError(
                        f"sending a constant of {len(raw):,} bytes to {self.http.url} broke off {failed} times in a row; "
                        f"{have:,} bytes of it are there, and the next try goes on from them"
                    )

    def _there(self, digest: str, size: int, failed: int) -> int:
        """How much of a value arrived; UnreachableError once the server does not answer this either."""
        query, digests = {"model": self.model}, {"digests": [digest]}
        try:
            missing = json_of(self.http.request("POST", "/v1/values/missing", params=query, json=digests))
        except UnreachableError:
            if failed:
                raise
            return 0
        return int(missing.get(digest, size))


def _type(row: dict[str, Any]) -> TensorType:
    return TensorType(row["dtype"], tuple(row["shape"]))


def _pieces(part: memoryview) -> Iterator[bytes]:
    """A part bit by bit, so that what is cut off in the middle has partly arrived."""
    for at in range(0, len(part), 1 << 18):
        yield bytes(part[at : at + (1 << 18)])
    if not part:
        yield b""
