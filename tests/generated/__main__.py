"""python -m tests.generated 17 [--shrink]: the experiment of a seed and its verdict. A range, 0:300, lists those that fail."""

from __future__ import annotations

import argparse
from collections import Counter

import torch
from tests.generated import Experiment, Verdict, compare, draw


def shrink(experiment: Experiment) -> Experiment:
    """The experiment without the statements that the difference does not need."""
    kind = _kind(compare(experiment))
    line = len(experiment.body) - 1
    while line >= 0:
        smaller = experiment.without(line)
        if _kind(compare(smaller)) == kind:
            experiment = smaller
        line -= 1
    return experiment


def _kind(verdict: Verdict) -> tuple[str, ...]:
    """What a smaller experiment must still show: a difference in numbers, or the same two errors."""
    lines = verdict.text.splitlines() if "reference:" in verdict.text else []
    return (
        verdict.kind,
        *(line.partition(":")[2].partition(":")[0] for line in lines if line.startswith(("ref", "pl"))),
    )


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="a seed, or a range A:B")
    parser.add_argument("--shrink", action="store_true", help="leave out what does not matter")
    given = parser.parse_args()
    if ":" not in given.seeds:
        experiment = draw(int(given.seeds))
        experiment = shrink(experiment) if given.shrink else experiment
        print(experiment.source)
        print("\n#", compare(experiment).text.replace("\n", "\n# ") or "the same")
        return
    first, _, last = given.seeds.partition(":")
    kinds: Counter[str] = Counter()
    for seed in range(int(first), int(last)):
        verdict = compare(draw(seed))
        kinds[f"{verdict.kind} ({verdict.plan})"] += 1
        if verdict.kind != "same":
            print(seed, verdict.kind, verdict.text[:300].replace("\n", " | "))
    print(dict(kinds))


if __name__ == "__main__":
    main()
