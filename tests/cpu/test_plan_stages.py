"""Every plan on the way from what is asked for to the least work gives the same numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.generated.compare import compare
from tests.generated.draw import draw

from weft.execute import planned
from weft.plan.compiled import Stage, stages
from weft.plan.cost import layer_tokens
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
