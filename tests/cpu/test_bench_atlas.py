"""The benchmark of the methods' own sweeps: equal to hooks, head by head, and void where a patch is lost."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import atlas  # noqa: E402
from mapping import given, tasks  # noqa: E402
from sweeping import contest, machine  # noqa: E402
from weft.cli.benchmarks import run_bench  # noqa: E402

TASKS = ["aie", "queries"]
each_task = pytest.mark.parametrize("key", TASKS)


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    monkeypatch.setattr(machine, "others", lambda since, until: (0.0, 1.0))


def race(key, sample=0):
    return atlas.race(key, quick=True, sample=sample, repeats=1)


@each_task
def test_methods_and_hooks_give_the_same_of_every_head(key):
    row = race(key)
    assert row.void == [] and list(row.entries) == ["weft", "hooks", "hooks, one row"]
    assert row.entries["weft"].difference < contest.NEAR


@each_task
def test_the_prompts_have_the_tokens_that_are_claimed(key):
    task = tasks.TASKS[key].of("tiny-words", atlas.ROWS[key])
    texts = task.asked.texts if key == "aie" else (*task.pairs.dst.texts, *task.pairs.src.prompts)
    sizes = [len(row) for row in given.ids("tiny-words", texts)]
    assert 64 <= min(sizes) and max(sizes) < 80


@each_task
def test_heads_differ_by_more_than_what_is_let_pass(key):
    found = tasks.TASKS[key].of("tiny-words", 4).weft()[:, 0]
    apart = (found[:, None] - found[None]).abs().amax(-1) + torch.eye(len(found))
    assert float(apart.min()) > 1e-3 * float(found.abs().max())


@each_task
def test_a_lost_patch_voids_the_row(key, monkeypatch):
    whole = tasks.Loop.run
    lost = lambda loop, head=None, value=None: whole(loop, None if head == (1, 2) else head, value)  # noqa: E731
    monkeypatch.setattr(tasks.Loop, "run", lost)
    assert any("weft differs from hooks" in why for why in race(key).void)


def test_a_wrong_choice_voids_the_row(monkeypatch):
    weft = tasks.Queries.weft
    turned = lambda task: weft(task) * torch.tensor([1.0, 0.0])[:, None] + torch.tensor([0.0, 1.0])[:, None]  # noqa: E731
    monkeypatch.setattr(tasks.Queries, "weft", turned)
    assert any("weft differs from hooks" in why for why in race("queries").void)


def test_choices_too_near_to_be_sure_of_are_not_compared():
    scores = torch.tensor([[1.0, 2.0, 2.00001], [1.0, 2.0, 3.0]])
    assert given.undecided(scores, 1e-4).tolist() == [True, False]
    hooks, weft = torch.tensor([[[5.0], [torch.nan]]]), torch.tensor([[[5.0], [1.0]]])
    found = atlas.decided({"hooks": hooks, "weft": weft})
    assert torch.equal(found["hooks"], found["weft"])


@each_task
def test_a_sample_of_the_loop_is_scaled_to_all_heads_and_said(key):
    row = race(key, sample=3)
    passes = 1 if key == "aie" else 2
    assert row.void == [] and row.entries["hooks"].scaled == (2 * 4 + passes) / (3 + passes)
    assert row.entries["weft"].scaled == 1 and "loops ran 3 heads" in atlas.told(row)


def test_a_busy_machine_voids_the_row(monkeypatch):
    monkeypatch.setattr(machine, "others", lambda since, until: (0.06, 1.0))
    assert race("aie", sample=2).void == ["not idle: other processes took up to 6% of the cores"]


def test_it_runs_by_its_name_and_prints_one_object(capfd):
    assert run_bench("atlas", ["--quick", "--repeats", "1", "--threads", "1", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert [row["task"] for row in report["rows"]] == TASKS and report["machine"]["versions"]["torch"]
    assert all(row["core_ratios"]["hooks"] > 0 for row in report["rows"])


@pytest.mark.slow
def test_the_methods_on_bobbin_are_held_to_what_is_asked(capfd):
    """With few prompts the mask has had one epoch and keeps every head, which is more than is allowed: status 1."""
    assert run_bench("bobbin", ["--quick", "--functions", "category"]) == 1
    said = capfd.readouterr().out
    assert said.count("NOT MET") == 1 and "asked ≥ 0.7: met" in said and "of 32: 0.0, 0.1" in said
