"""Every plan on the way from what is asked for to the least work gives the same numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.generated.compare import compare
from tests.generated.draw import draw

from weft.execute import planned
from weft.plan.compiled import Stage, stages
from weft.plan.cost import layer_tokens, most_tokens
from weft.plan.forks import Fork

NAMES = ("naive", "share", "prune", "suffix", "batch")


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_stopping_after_a_pass_of_the_planner_changes_no_number(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used = 0

    def some(forks: tuple[Fork, ...], layers: int, most_tokens: int | None = None) -> tuple[Stage, ...]:
        nonlocal used
        used += 1
        return stages(forks, layers, most_tokens)[: number + 1]

    monkeypatch.setattr(planned, "stages", some)
    for seed in range(1000, 1030):
        verdict = compare(draw(seed))
        assert verdict.kind != "different", f"seed {seed}: {verdict.text}"
    assert used >= 8


def test_no_pass_of_the_planner_makes_work(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def told(forks: tuple[Fork, ...], layers: int, most_tokens: int | None = None) -> tuple[Stage, ...]:
        found = stages(forks, layers, most_tokens)
        seen.append([layer_tokens(stage.plan) for stage in found])
        return found

    monkeypatch.setattr(planned, "stages", told)
    for seed in range(1000, 1030):
        compare(draw(seed))
    assert seen
    for costs in seen:
        assert all(after <= before for before, after in pairwise(costs[1:])), costs
        assert costs[-1] <= costs[0]


def fork(run: int, row: tuple[int, ...], first: int, layer: int) -> Fork:
    """A run of one row on a model of two layers, read at the end, edited from a layer and a position on."""
    return Fork(run, (row,), (0,), len(row), (first,), layer, 1)


def test_a_pass_has_no_more_tokens_than_fit() -> None:
    rows = [(n, 1, 2, 3, 4) for n in range(5)]
    unedited = tuple(fork(n, row, 5, 2) for n, row in enumerate(rows))
    edited = tuple(fork(n + 5, row, 0, 1) for n, row in enumerate(rows))
    plan = stages((*unedited, *edited), 2, 12)[-1].plan
    assert most_tokens(plan) == 10
    assert [len(numbers) for numbers in plan.passes] == [2, 2, 1] * 2


def test_what_has_little_in_common_stays_by_itself() -> None:
    common = tuple(range(16))
    rows = [(*common, 20 + n, 30 + n) for n in range(2)]
    found = stages(tuple(fork(n, row, 1, 0) for n, row in enumerate(rows)), 2, 1000)
    assert layer_tokens(found[-1].plan) == 2 * 18 * 2
    assert [stage.name for stage in found] == ["naive", "prune", "batch"]
