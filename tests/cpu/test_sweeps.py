"""The sweep benchmark: contestants agree, a wrong one voids its row, and the counted work is the published one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from sweeping import contest, machine, page, show  # noqa: E402
from sweeping.contest import Entry, Row, row_of  # noqa: E402
from sweeping.counted import counted  # noqa: E402
from sweeping.rivals import hooks  # noqa: E402
from sweeping.stand import Setting  # noqa: E402
from sweeping.tasks import TASKS  # noqa: E402

MODELS = ["tiny", pytest.param("tiny-llama", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", [key for key in TASKS if key != "f"])
def test_all_contestants_give_the_same(task, model):
    rivals = ["weft", "hooks", "expert"] + ["weft one by one"] * (task == "g")
    row = contest.contest(Setting("", task, model, 1, quick=True), rivals, repeats=1)
    assert {name: entry.unable for name, entry in row.entries.items()} == dict.fromkeys(rivals, "")
    assert [why for why in row.void if "idle" not in why] == []


def test_a_sample_of_the_loop_is_compared_with_its_part_of_the_whole():
    row = contest.contest(Setting("", "a16", "tiny", 1, quick=True, sample=3), ["weft", "hooks"], repeats=1)
    assert [why for why in row.void if "idle" not in why] == []
    assert row.entries["hooks"].scaled == (2 * 4 + 1) / (3 + 1)


def test_a_lost_patch_voids_the_row(monkeypatch):
    monkeypatch.setattr(hooks, "_replace", lambda args, function: [function(args[0].clone()), None][1])
    row = contest.contest(Setting("", "a16", "tiny", 1, quick=True), ["weft", "hooks"], repeats=1)
    assert any("weft differs from hooks" in why for why in row.void)


@pytest.mark.parametrize(("task", "gflop"), [("a16", 232), ("a64", 356), ("b", 267), ("c", 1889)])
def test_counted_work_of_gpt2(task, gflop):
    work = counted(TASKS[task].calls, TASKS[task].data("gpt2", quick=False))
    assert work / 1e9 == pytest.approx(gflop, rel=0.01)


def test_what_others_took():
    before, after = machine.Moment(0.0, 10.0, 4.0), machine.Moment(2.0, 13.0, 6.0)
    taken, there = machine.others(before, after)
    assert taken == (13 - 10) - (6 - 4)
    assert there == 2 * machine.os.cpu_count()


def test_the_page_shows_ratios_voids_and_what_could_not_be_had(tmp_path):
    entries = {"weft": Entry([1.0]), "hooks": Entry([20.0]), "pyvene": Entry(unable="cannot")}
    row = Row("a16", "gpt2", TASKS["a16"].title, entries, repeats=1, void=["not idle"])
    about = machine.describe(1)
    page.write([row_of(row.to_data())], about, tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "20.0×" in text and "void, not idle" in text and "pyvene, (a16): cannot" in text
    assert "asked ≥ 15× hooks: 20.0× met, if the row were not void" in show.text(row)
    assert (tmp_path / "performance.png").stat().st_size > 1000
