"""In a process whose weft may hold a fault: run drawn experiments until one notices, and say so as a line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from tests.generated import Experiment, compare, draw
from tests.generated.hooks_oracle import Unsupported, check

import weft.execute.planned
import weft.execute.turns

SEEDS, TRIED, HOOKED = 160, 50, 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--seeds", nargs="*", type=int, help="those to try, in order; left out: all, to see what fails")
    parser.add_argument(
        "--planned", nargs="*", type=int, default=[], help="seeds that the engine ran without the fault"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    assert Path(weft.__file__ or "").is_relative_to(given.source), f"weft came from {weft.__file__}"
    print(json.dumps(baseline() if given.seeds is None else tried(given.seeds, set(given.planned))))


def baseline() -> dict[str, Any]:
    """What each seed exercises, and which fail though weft is whole."""
    drawn = [draw(seed) for seed in range(SEEDS)]
    verdicts = {each.seed: compare(each) for each in drawn}
    failing = [each.seed for each in drawn if verdicts[each.seed].kind == "different" or hooked(each)]
    planned = [seed for seed, verdict in verdicts.items() if verdict.plan == "planned"]
    return {"failing": failing, "planned": planned, "features": {each.seed: sorted(each.features) for each in drawn}}


def tried(seeds: list[int], planned: set[int]) -> dict[str, Any]:
    """The first experiment that notices, or how many there were."""
    # weft's own check at first use would turn a faulty engine off before an experiment could notice.
    weft.execute.planned.distrust = lambda *_: ""
    weft.execute.turns.undecoded = lambda *_: ""
    drawn, skipped, left = [], 0, 0
    for seed in seeds[:TRIED]:
        drawn.append(draw(seed))
        verdict = compare(drawn[-1])
        skipped += verdict.kind == "skipped"
        left += seed in planned and verdict.plan != "planned"
        if verdict.kind == "different":
            return {"caught": f"seed {seed}: engine against reference: {verdict.text[:160]}"}
    if skipped > len(drawn) / 5:
        return {"caught": f"{skipped} of {len(drawn)} draws are no longer legal"}
    if left > len(planned & {each.seed for each in drawn}) / 2:
        return {"caught": f"the engine left {left} of {len(drawn)} to the reference"}
    for experiment in drawn[:HOOKED]:
        if found := hooked(experiment):
            return {"caught": f"seed {experiment.seed}: {found[:160]}"}
    return {"caught": "", "tried": len(drawn)}


def hooked(experiment: Experiment) -> str:
    """What the tests of reference and plain hooks would say of this experiment; "" if nothing."""
    try:
        found = check(experiment)
    except Unsupported:
        return ""
    except Exception as error:
        return f"plain hooks: {type(error).__name__}: {error}"
    return f"reference against plain hooks: {found}" if found else ""


if __name__ == "__main__":
    sys.exit(main())
