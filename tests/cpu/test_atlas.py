"""An atlas finds what is planted, says why it left the rest out, and goes on where it was stopped."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from tests.tiny import tiny_gpt2

import weft
from weft import tasks
from weft.atlas import Atlas, Settings, atlas, run
from weft.atlas.abilities import VALUES, Abilities
from weft.atlas.part import Context, Skip, can
from weft.bobbin import tokenizer
from weft.planted.induction import truth

LITTLE = Settings(n=16)
FEW = {name: tasks.TASKS[name] for name in ("functions", "repeated", "ioi", "greater_than")}
"""Tasks by which each reason is seen; all of them take long."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Atlas, Path]]:
    folder = tmp_path_factory.mktemp("atlas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "TASKS", FEW)
        yield atlas(weft.load("induction"), folder, LITTLE, progress=False), folder


def test_it_finds_the_planted_head_and_says_why_there_is_no_more(planted: tuple[Atlas, Path]) -> None:
    found, _ = planted
    assert found["induction"].above() == [truth().induction]
    assert not found.stopped
    assert "no token for part of" in found.skipped["functions"]
    with pytest.raises(KeyError, match="no token for part of"):
        found["functions"]


def test_the_report_holds_text_figures_tables_and_the_results_themselves(planted: tuple[Atlas, Path]) -> None:
    found, folder = planted
    page = found.report.read_text(encoding="utf-8")
    for name in found.found:
        assert f'<h2 id="{name}">' in page
    for why in found.skipped.values():
        assert html.escape(why) in page
    body = page[page.index("</script>") :]
    assert not re.findall(r'(?:src|href)="https?:', body)  # it opens without a network
    assert body.count("Plotly.newPlot") >= 3
    inside = re.search(r'download="induction.safetensors" href="data:[^,]+,([^"]+)"', body)[1]
    assert base64.b64decode(inside) == (folder / "results" / "induction.safetensors").read_bytes()
    assert found["induction"].records[0].hash[:16] in body


def test_the_same_call_reruns_nothing(planted: tuple[Atlas, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, folder = planted

    def never(_: Context) -> Any:
        raise AssertionError("a part that was done ran again")

    monkeypatch.setattr(run, "FIXED", tuple(replace(part, run=never) for part in run.FIXED))
    again = atlas(weft.load("induction"), folder, LITTLE, progress=False)
    assert again.to_data() | {"seconds": 0} == first.to_data() | {"seconds": 0}


def test_another_models_folder_is_refused(planted: tuple[Atlas, Path]) -> None:
    _, folder = planted
    for model, settings in (("induction", Settings(n=20)), ("bobbin", LITTLE)):
        with pytest.raises(weft.errors.ProgramError, match="give another folder"):
            atlas(weft.load(model), folder, settings)


def test_stopped_it_goes_on_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS", FEW)
    model = weft.load("induction")
    with monkeypatch.context() as patch:
        patch.setattr(run, "FIXED", (run.FIXED[0], replace(run.FIXED[1], run=_interrupted), *run.FIXED[2:]))
        stopped = atlas(model, tmp_path, LITTLE, progress=False)
    assert stopped.stopped == "in induction"
    assert list(stopped.found) == ["abilities"]
    assert "it was stopped in induction" in stopped.report.read_text(encoding="utf-8")
    done = atlas(model, tmp_path, LITTLE, progress=False)
    assert not done.stopped and "induction" in done.found
    assert json.loads((tmp_path / "atlas.json").read_text())["found"] == list(done.found)


def _interrupted(_: Context) -> Any:
    raise KeyboardInterrupt


def test_of_a_model_that_knows_nothing_nearly_all_is_left_out(tmp_path: Path) -> None:
    words = tokenizer.build()
    net = tiny_gpt2(seed=1, vocab_size=words.get_vocab_size(), n_positions=256)
    found = atlas(weft.load(net, tokenizer=words), tmp_path, LITTLE, progress=False)
    assert set(found.found) == {"abilities", "induction"}
    assert {"stream", "functions", "predicates"} <= set(found.skipped)
    assert found["induction"].above() == []


def test_without_a_tokenizer_attention_alone_is_looked_at(tmp_path: Path) -> None:
    found = atlas(weft.load(tiny_gpt2(seed=1)), tmp_path, LITTLE, progress=False)
    assert set(found.found) == {"induction"}
    assert found.skipped["abilities"] == "it has no tokenizer, and tasks are texts"


def test_guessing_and_little_skill_are_told_apart() -> None:
    """26 of 32 with two options is more than guessing; 23 is so 19 times in 20, which fifteen tasks are too many for."""
    known = {"lucky": (23 / 32, 0.5), "skilled": (26 / 32, 0.5), "poor": (0.4, 0.1)}
    rows = [[value, 0.0, 1.0, chance, 32] for value, chance in known.values()]
    coords = {"task": list(known), "value": list(VALUES)}
    accuracy = xr.DataArray(rows, dims=("task", "value"), coords=coords)
    words = dict.fromkeys(("model", "mediator", "search", "intervention", "metric", "control"), "")
    measured = Abilities(**words, settings={"left_out": {"mute": "no words"}}, arrays={"accuracy": accuracy})
    context = Context(None, 16, 0, False, {"abilities": measured})
    assert can(context, "skilled") == 26 / 32
    for task, why in (("lucky", "no better than guessing"), ("poor", "0.40 of poor"), ("mute", "no words")):
        with pytest.raises(Skip, match=why):
            can(context, task)


def test_too_few_prompts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(weft.errors.ProgramError, match="n=16"):
        atlas(weft.load("induction"), tmp_path, Settings(n=4))
