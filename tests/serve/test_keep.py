"""Values that stay where the model is: used in later sessions by name and by digest, listed, freed, expiring."""

from __future__ import annotations

import os
import re
import time
import urllib.request

import pytest
import torch
from helpers import NAME

import weft
from weft.errors import NotFoundError, NotSavedError, ProgramError
from weft.ir.types import TensorType
from weft.serve import background
from weft.serve.jobs import Jobs
from weft.serve.keeping import Keeping, KeptRow
from weft.serve.settings import Settings
from weft.serve.values import Values

PROMPT = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2]]


@pytest.fixture
def url(real):
    return real[0]


@pytest.fixture(params=["here", "there"])
def model(request, url):
    return weft.load(NAME) if request.param == "here" else weft.connect(url).model(NAME)


def received(url: str, what: str) -> float:
    """Bytes that have come in at the server, as it counts them itself."""
    text = urllib.request.urlopen(f"{url}/metrics").read().decode()
    found = re.search(rf'weft_received_bytes_total{{what="{what}"}} (\S+)', text)
    return float(found.group(1)) if found else 0.0


def keep(model, name: str, scale: float = 1.0) -> torch.Tensor:
    """Keep a value under `name`; its numbers."""
    with model.session() as s:
        h = s.run(PROMPT).resid_post[0][0] * scale
        h.keep(name)
        h.save("h")
    return s.results["h"]


def test_a_kept_value_is_used_later_by_name_and_by_itself(model):
    numbers = keep(model, "later")
    with model.session() as s:
        kept = (s.run(PROMPT).resid_post[0][0] + 1.0).keep("itself")
    with model.session() as s:
        h = s.run(PROMPT).resid_post[0][0]
        (h - model.kept["later"]).save("by name")
        (kept - h).save("by itself")
        torch.relu(kept).save("alone")
    assert s.results["by name"].abs().max() == 0
    torch.testing.assert_close(s.results["by itself"], torch.ones_like(numbers))
    torch.testing.assert_close(s.results["alone"], (numbers + 1).relu())
    torch.testing.assert_close(model.kept["later"].value, numbers)
    assert "itself" not in s.results


def test_it_is_listed_sized_and_freed(model):
    numbers = keep(model, "one")
    keep(model, "two", 2.0)
    assert {"one", "two"} <= set(model.kept)
    entry = model.kept["one"]
    assert entry.shape == numbers.shape and entry.dtype == numbers.dtype and entry.nbytes == numbers.nbytes
    assert "'one'" in repr(model.kept) and model.kept.nbytes >= 2 * numbers.nbytes
    model.kept.free("one")
    model.kept["two"].free()
    assert not {"one", "two"} & set(model.kept)
    with pytest.raises(NotFoundError, match=r"no value is kept as 'one'.*freed.*there is"):
        model.kept["one"]
    with pytest.raises(NotFoundError, match="'one'"):
        model.kept.free("one")


def test_a_name_stands_for_what_was_kept_last(model):
    keep(model, "again")
    numbers = keep(model, "again", 3.0)
    torch.testing.assert_close(model.kept["again"].value, numbers)


def test_what_was_only_kept_says_where_its_numbers_are(model):
    with model.session() as s:
        h = s.run(PROMPT).resid_post[0].keep("far")
    with pytest.raises(NotSavedError, match=r"kept as 'far' .* model\.kept\['far'\]\.value"):
        h.value.sum()


@pytest.mark.parametrize("name", ["", "_mine", "a/b", 3])
def test_names_that_cannot_be(model, name):
    with pytest.raises(ProgramError, match="cannot name a value that is kept"), model.session() as s:
        s.run(PROMPT).resid_post[0].keep(name)


def test_one_name_twice_in_a_session(model):
    with pytest.raises(ProgramError, match="kept as 'x' in this session already"), model.session() as s:
        h = s.run(PROMPT).resid_post[0]
        h.keep("x")
        (h * 2).keep("x")


def test_a_generations_steps_are_kept_together(model):
    with model.session() as s:
        g = s.generate(PROMPT, max_new_tokens=3)
        g.each.resid_post[0][:, -1].keep("steps")
        g.each.resid_post[0][:, -1].save("steps")
    assert s.results["steps"].shape[0] == 3
    torch.testing.assert_close(model.kept["steps"].value, s.results["steps"])


# -- on a server alone ---


def test_nothing_that_is_there_is_sent(url):
    model = weft.connect(url).model(NAME)
    numbers = keep(model, "large")
    assert numbers.nbytes > 1 << 14
    before = received(url, "values"), received(url, "experiments")
    with model.session() as s:
        h = s.run(PROMPT).resid_post[0][0]
        (h - model.kept["large"]).save("kept")
        (h - numbers).save("result")  # an ordinary tensor, fetched before: known by its digest
    assert s.results["kept"].abs().max() == s.results["result"].abs().max() == 0
    assert received(url, "values") == before[0]
    assert received(url, "experiments") - before[1] < 4000


def test_another_client_finds_it(url):
    numbers = keep(weft.connect(url).model(NAME), "shared")
    other = weft.connect(url).model(NAME)
    torch.testing.assert_close(other.kept["shared"].value, numbers)
    with other.session() as s:
        (other.kept["shared"] * 2).save("twice")
    torch.testing.assert_close(s.results["twice"], numbers * 2)


def test_the_same_experiment_again_keeps_again_what_was_freed(url):
    model = weft.connect(url).model(NAME)
    keep(model, "freed", 5.0)
    model.kept.free("freed")
    numbers = keep(model, "freed", 5.0)
    torch.testing.assert_close(model.kept["freed"].value, numbers)


def test_a_value_that_was_freed_meanwhile_is_an_error_at_the_users_line(url):
    model = weft.connect(url).model(NAME)
    with model.session() as s:
        kept = (s.run(PROMPT).resid_post[0][0] * 7.0).keep("gone")
    model.kept.free("gone")
    with (
        pytest.raises(
            NotFoundError, match=r"sha256:.* is not on this server, or no longer: it was freed or has expired"
        ),
        model.session() as s,
    ):
        (kept * 2).save("x")


def test_a_job_nobody_waits_for_keeps_too(url):
    model = weft.connect(url).model(NAME)
    with model.session(wait=False) as s:
        (s.run(PROMPT).resid_post[0][0] * 11.0).keep("by job")
    s.job.wait()
    assert model.kept["by job"].value.shape == (12, 512)


def test_a_record_from_a_server_is_whole_and_says_what_was_kept(url, tmp_path):
    model, big = weft.connect(url).model(NAME), torch.randn(12, 512)
    with model.session() as s:
        h = s.run(PROMPT).resid_post[0][0] + big
        h.keep("noted")
        h.sum().save("sum")
    record = s.record
    assert record.kept["noted"]["digest"] == model.kept["noted"].digest
    record.save(tmp_path / "record.safetensors")
    comparison = weft.replay(str(tmp_path / "record.safetensors"), weft.load(NAME))
    assert comparison.agrees(1e-5), str(comparison)


def test_a_record_fetched_by_somebody_else_gets_its_constants_from_the_server(url, tmp_path):
    model, big = weft.connect(url).model(NAME), torch.randn(12, 512)
    with model.session(wait=False) as s:
        (s.run(PROMPT).resid_post[0][0] + big).sum().save("sum")
    s.job.wait()
    weft.connect(url).job(s.job.id).record().save(tmp_path / "record.safetensors")
    assert weft.replay(str(tmp_path / "record.safetensors"), weft.load(NAME)).agrees(1e-5)


def test_values_expire_unless_they_are_used(tmp_path, monkeypatch):
    jobs = Jobs(f"sqlite:///{tmp_path / 'x.sqlite'}")
    settings = Settings((), tmp_path, keep_seconds=100.0)
    values, keeping, kind = Values(tmp_path, settings), Keeping(jobs.engine), TensorType("float32", (4,))
    now = time.time()
    for digest, name in (("a" * 64, "used"), ("b" * 64, "unused")):
        (tmp_path / "new").write_bytes(b"\0" * 16)
        values.put("scope", digest, kind, tmp_path / "new")
        keeping.put(KeptRow("scope", name, digest, "float32", [4], now, now + 100, "x"))
    monkeypatch.setattr(time, "time", lambda: now + 90)
    assert values.missing("scope", ["a" * 64]) == {}
    keeping.renew("scope", "a" * 64, now + 190)
    monkeypatch.setattr(time, "time", lambda: now + 150)
    os.utime(tmp_path / "scope" / f"{'a' * 64}.json", (now + 90, now + 90))
    assert [row.name for row in keeping.all("scope")] == ["used"]
    values.expire(keeping.expire())
    assert values.missing("scope", ["a" * 64, "b" * 64]) == {"b" * 64: 0}
    assert [each.name[0] for each in (tmp_path / "scope").glob("*.bin")] == ["a"], "the other's memory is given back"
    jobs.close()


def test_values_outlive_the_server(tmp_path):
    with background([NAME], tmp_path) as url:
        numbers = keep(weft.connect(url).model(NAME), "durable")
    with background([NAME], tmp_path) as url:
        torch.testing.assert_close(weft.connect(url).model(NAME).kept["durable"].value, numbers)
