"""In a process whose weft may hold a fault: run drawn experiments until one notices, and say so as a line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from tests.generated import Experiment, compare, draw
from tests.generated.hooks_oracle import Unsupported, check

import weft

SEEDS = 160
TRIED = 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--baseline", action="store_true")
    parser.add_argument("--features", nargs="*", default=[])
    parser.add_argument("--without", nargs="*", type=int, default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    assert Path(weft.__file__ or "").is_relative_to(given.source), f"weft came from {weft.__file__}"
    if given.baseline:
        failing = [seed for seed in range(SEEDS) if noticed(draw(seed))]
        print(json.dumps({"failing": failing}))
        return
    drawn = [draw(seed) for seed in range(SEEDS) if seed not in given.without]
    drawn.sort(key=lambda each: not set(given.features) & each.features)
    for number, experiment in enumerate(drawn[:TRIED]):
        found = noticed(experiment)
        if found:
            print(json.dumps({"caught": f"experiment {number + 1}, seed {experiment.seed}: {found[:160]}"}))
            return
    print(json.dumps({"caught": "", "tried": len(drawn[:TRIED])}))


def noticed(experiment: Experiment) -> str:
    """What the tests of generated experiments would say of this one; "" if nothing."""
    verdict = compare(experiment)
    if verdict.kind == "different":
        return f"engine against reference: {verdict.text}"
    try:
        found = check(experiment)
    except Unsupported:
        return ""
    except Exception as error:
        return "" if verdict.kind == "skipped" else f"plain hooks: {type(error).__name__}: {error}"
    return f"reference against plain hooks: {found}" if found else ""


if __name__ == "__main__":
    sys.exit(main())
