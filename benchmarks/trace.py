"""What tracing costs: microseconds an operation, beside the same operations on ordinary tensors.

    weft bench trace            figures for reading
    weft bench trace --json     the same for programs

The mix is that of a sweep over heads: select and slice a site, copy a place into another run, subtract, index one
answer a row, log_softmax. Each is counted as one operation. Of several rounds the median is taken; the session is left
without running the model.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import weft

GOAL = 15.0
"""Microseconds an operation that tracing may take."""


class Stop(Exception):
    """Leaves a session without running it."""


def mix(
    patched: torch.Tensor, clean: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor, answers: torch.Tensor
) -> int:
    """One step of a sweep on z [batch, pos, head, d_head] and logits [batch, pos, vocab]; how many operations it was."""
    last = clean.select(1, -1)
    head = last[:, 2:3]
    patched[:, -1, 2:3].copy_(head)  # a select, a slice, a copy
    final = logits[:, -1]
    scores = final.log_softmax(-1)
    chosen = scores[rows, answers]
    chosen - chosen[:1]  # a slice, a subtraction
    return 10


def timed(step: Callable[[], int], count: int) -> float:
    """Microseconds of this thread's time an operation, over `count` steps (so that others' work counts less)."""
    start = time.thread_time()
    done = sum(step() for _ in range(count))
    return (time.thread_time() - start) / done * 1e6


def plain(count: int, z: torch.Tensor, logits: torch.Tensor, rows: torch.Tensor, answers: torch.Tensor) -> float:
    other = z.clone()
    return timed(lambda: mix(other, z, logits, rows, answers), count)


def traced(count: int, model: Any, prompts: torch.Tensor, rows: torch.Tensor, answers: torch.Tensor) -> float:
    found = 0.0
    try:
        with model.session() as s:
            clean = s.run(prompts)
            patched = clean.fork()
            found = timed(lambda: mix(patched.z[1], clean.z[1], patched.logits, rows, answers), count)
            raise Stop
    except Stop:
        return found


def figures(rounds: int, count: int) -> dict[str, Any]:
    """Medians over `rounds` of `count` steps each, after a round to warm up."""
    torch.set_num_threads(1)
    model = weft.load("induction")
    prompts = torch.zeros(4, 16, dtype=torch.long)
    rows, answers = torch.arange(4), torch.tensor([1, 2, 3, 4])
    with model.trace(prompts) as run:
        z, logits = run.z[1].save("z"), run.logits.save("logits")
    of_plain, of_traced = [], []
    for _ in range(rounds + 1):
        of_plain.append(plain(count, z.value, logits.value, rows, answers))
        of_traced.append(traced(count, model, prompts, rows, answers))
    bare, cost = statistics.median(of_plain[1:]), statistics.median(of_traced[1:])
    return {
        "traced_us_per_op": round(cost, 2),
        "plain_us_per_op": round(bare, 2),
        "ratio": round(cost / bare, 2),
        "goal_us_per_op": GOAL,
        "rounds": rounds,
        "ops_per_round": count * 10,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=300, help="steps a round")
    asked = parser.parse_args()
    found = figures(asked.rounds, asked.count)
    if asked.json:
        print(json.dumps(found))
        return
    print(f"traced         {found['traced_us_per_op']:7.2f} µs an operation (goal: at most {GOAL:g})")
    print(f"torch.Tensor   {found['plain_us_per_op']:7.2f} µs an operation, the same mix")
    print(f"               median of {asked.rounds} rounds of {found['ops_per_round']} operations")


if __name__ == "__main__":
    main()
