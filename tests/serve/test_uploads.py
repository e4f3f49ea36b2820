"""Large constants are sent once, in parts, and go on where they broke off."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest
import torch
from helpers import NAME
from test_keep import received

import weft
from weft.api import RemoteBackend
from weft.client import Client
from weft.client import values as client_values
from weft.client.http import Http
from weft.errors import FormatError, LimitError, RefusedError, UnreachableError
from weft.serve import background
from weft.trace import Model
from weft.trace.constants import TensorConstant


@pytest.fixture
def url(real):
    return real[0]


def use(model, big: torch.Tensor, at: int = 0) -> float:
    """Use a large constant, as a whole, in a session of its own; entry `at` comes home, and should be `big[at]`."""
    with model.session() as s:
        (big + 0 * s.run([[1]]).resid_post[0][0, 0, 0])[at].save("entry")
    return float(s.results["entry"])


def test_a_constant_used_in_many_sessions_is_sent_once(url):
    big = torch.randn(1 << 20)
    before = received(url, "values"), received(url, "experiments")
    for at in range(5):
        model = weft.connect(url).model(NAME)  # another client each time
        assert use(model, big, at) == float(big[at])
    assert received(url, "values") - before[0] == big.nbytes
    assert received(url, "experiments") - before[1] < 0.01 * big.nbytes


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_200_mb_in_20_sessions(url):
    big, model = torch.randn(50_000_000), weft.connect(url).model(NAME)
    before = received(url, "values") + received(url, "experiments")
    for at in range(20):
        assert use(model, big, at) == float(big[at])
    assert received(url, "values") + received(url, "experiments") - before <= 1.05 * big.nbytes


def test_another_model_has_its_own(url):
    big = torch.randn(1 << 16)
    use(weft.connect(url).model(NAME), big)
    before = received(url, "values")
    use(weft.connect(url).model("induction"), big)
    assert received(url, "values") - before == big.nbytes


class Failing(httpx.HTTPTransport):
    """A road on which some uploads break off in the middle of a part."""

    def __init__(self, *numbers: int, at: int) -> None:
        super().__init__()
        self.numbers, self.at, self.puts = numbers, at, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PUT":
            self.puts += 1
            if self.puts in self.numbers:
                request.stream = Broken(request.stream, self.at)
        return super().handle_request(request)


class Broken(httpx.SyncByteStream):
    def __init__(self, whole, at: int) -> None:
        self.whole, self.at = whole, at

    def __iter__(self):
        for number, piece in enumerate(self.whole):
            if number == self.at:
                raise httpx.WriteError("broken pipe")
            yield piece


def failing(url: str, *numbers: int, at: int) -> Model:
    return Model(RemoteBackend(Client(Http(url, None, Failing(*numbers, at=at))), NAME))


def test_a_part_that_breaks_off_goes_on_from_there(url, monkeypatch):
    monkeypatch.setattr(client_values, "PART", 1 << 20)
    big = torch.randn(1 << 20)
    before = received(url, "values")
    assert use(failing(url, 2, 4, at=2), big) == float(big[0])
    assert big.nbytes <= received(url, "values") - before <= 1.05 * big.nbytes


def test_an_upload_given_up_goes_on_in_the_next_session(url, monkeypatch):
    monkeypatch.setattr(client_values, "PART", 1 << 20)
    big, before = torch.randn(1 << 20), received(url, "values")
    with pytest.raises(UnreachableError, match=r"broke off 6 times in a row; .* the next try goes on from them"):
        use(failing(url, *range(3, 99), at=0), big)
    there = received(url, "values") - before
    assert there == 2 << 20
    use(weft.connect(url).model(NAME), big)
    assert received(url, "values") - before == big.nbytes


def test_a_connection_cut_in_the_middle_keeps_what_came(url):
    constant = TensorConstant(torch.randn(1 << 20))
    place = urlsplit(url)
    query = f"/v1/values/{constant.digest()}?model={NAME}&dtype=float32&shape={1 << 20}&offset=0"
    raw = constant.tobytes()
    with socket.create_connection((place.hostname, place.port)) as connection:
        connection.sendall(f"PUT {query} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(raw)}\r\n\r\n".encode())
        connection.sendall(raw[: 3 << 20])
    values = weft.connect(url).client.values(NAME)
    assert 0 < _there(values, constant.digest()) <= 3 << 20
    with pytest.raises(RefusedError, match="are here; go on there") as refused:
        values.http.request("PUT", query, content=b"x")
    assert refused.value.details["received"] == _there(values, constant.digest())


def _there(values, digest: str) -> int:
    answer = values.http.request("POST", "/v1/values/missing", params={"model": NAME}, json={"digests": [digest]})
    return answer.json()[digest]


def put(url: str, digest: str, raw: bytes, **query: object) -> None:
    given = {"model": NAME, "dtype": "uint8", "shape": str(len(raw)), "offset": 0, **query}
    Http(url).request("PUT", f"/v1/values/{digest}", params=given, content=raw)


def test_bytes_of_another_digest_are_refused_and_not_kept(url):
    digest = TensorConstant(torch.zeros(4, dtype=torch.uint8)).digest()
    with pytest.raises(FormatError, match="have another digest"):
        put(url, digest, b"\1\1\1\1")
    assert _there(weft.connect(url).client.values(NAME), digest) == 0


@pytest.mark.parametrize(
    ("digest", "query", "words"),
    [
        ("0" * 63, {}, "is no digest"),
        ("g" * 64, {}, "is no digest"),
        ("0" * 64, {"shape": "-3"}, "no tensor's type"),
        ("0" * 64, {"shape": "x"}, "is no shape"),
        ("0" * 64, {"dtype": "complex64"}, "no tensor's type"),
        ("0" * 64, {"shape": "2"}, "more bytes were sent"),
        ("0" * 64, {"shape": "1" + "0" * 15}, "bytes of constants"),
    ],
)
def test_hostile_uploads(url, digest, query, words):
    with pytest.raises(weft.WeftError, match=words):
        put(url, digest, b"\1\1\1\1", **query)


def test_no_more_than_is_allowed(tmp_path):
    with background([NAME], tmp_path, value_bytes=1 << 20) as url:
        model = weft.connect(url).model(NAME)
        use(model, torch.randn(1 << 17))
        with pytest.raises(LimitError, match=r"1,048,576 bytes comes on top of 524,288 .* the limit is 1,048,576"):
            use(model, torch.randn(1 << 18))
