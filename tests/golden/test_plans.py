"""What each pass of the planner makes of what is asked for, as text.

A file that no longer agrees means that the planner decides otherwise: read the difference, and if it is meant, write the
files anew: `PYTHONPATH=src:tests python tests/golden/test_plans.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from golden.asked import ASKED, LAYERS
from weft.plan.compiled import stages
from weft.plan.show import render

HERE = Path(__file__).parent / "plans"
MOST_TOKENS = 12


def shown(name: str) -> str:
    found = stages(ASKED[name], LAYERS, MOST_TOKENS)
    return "\n".join(f"--- {stage.name}\n{render(stage.plan)}" for stage in found)


@pytest.mark.parametrize("name", ASKED)
def test_the_plan_is_as_it_was(name: str) -> None:
    assert shown(name) == (HERE / f"{name}.txt").read_text(encoding="utf-8")


def write() -> None:
    for name in ASKED:
        (HERE / f"{name}.txt").write_text(shown(name), encoding="utf-8")


if __name__ == "__main__":
    write()
