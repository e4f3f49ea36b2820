"""All heads by the methods: indirect effects and patched queries, beside a loop of plain hooks with a forward pass a head.

    weft bench atlas                      GPT-2 small's shape, prompts of 64 tokens and more; loops measured on 6 heads
    weft bench atlas --quick              a model of 2 layers of 64: seconds
    weft bench atlas --sample 0           loops run whole: an hour

Weft's part is what `function_vector` and `filter_heads` themselves call, on weights that are random. All run in alternation;
medians are shown. A row is void where results differ by more than 1e-4 of the largest, or where other processes took over
5 % of the cores. On a machine that is not idle use `--threads 1` and look at the core-seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is built here
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
warnings.simplefilter("ignore")

import torch  # noqa: E402

from mapping import given  # noqa: E402
from mapping.tasks import TASKS  # noqa: E402
from sweeping import machine, show  # noqa: E402
from sweeping.contest import Entry, Row, judge, note  # noqa: E402
from sweeping.stand import timed  # noqa: E402

BARS = {"hooks": 30.0}
"""What is asked for, against plain hooks."""
ROWS = {"aie": 25, "queries": 32}
"""Prompts: as many as `function_vector` takes for effects, and as `filter_heads` runs in one session."""
QUICK_ROWS = 4


def contestants(task: Any, heads: list[tuple[int, int]]) -> dict[str, Callable[[], torch.Tensor]]:
    """By name; "hooks, one row" unembeds the last token alone, where plain hooks leave the forward as it is."""
    return {
        "weft": task.weft,
        "hooks": lambda: task.hooks(heads),
        "hooks, one row": lambda: task.hooks(heads, logits_to_keep=1),
    }


def race(key: str, *, quick: bool, sample: int, repeats: int) -> Row:
    """One task by all, `repeats` rounds in alternation."""
    name = given.MODELS[quick]
    task = TASKS[key].of(name, QUICK_ROWS if quick else ROWS[key])
    every, heads = given.every_head(name), given.every_head(name, sample)
    row = Row(key, name, task.title, {}, repeats, len(heads) if len(heads) < len(every) else 0, quick)
    for rival, run in contestants(task.small(), heads[:2]).items():
        started = time.perf_counter()
        run()  # checks made on first use are not the round's
        row.entries[rival] = Entry(first=time.perf_counter() - started)
        if rival != "weft":
            row.entries[rival].scaled = (len(every) + task.passes) / (len(heads) + task.passes)
    results: dict[str, torch.Tensor] = {}
    taken = {rival: [0.0, 0.0] for rival in row.entries}
    for _ in range(repeats):
        for rival, run in contestants(task, heads).items():
            found = timed(run)
            note(row.entries[rival], found, taken[rival])
            results[rival] = found.result
    results["weft"] = results["weft"][[every.index(head) for head in heads]]
    judge(row, decided(results), taken)
    return row


def decided(results: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the choices that hooks call too near to be sure of (NaN); what others have in their place is not compared."""
    unsure = results["hooks"][:, 1:].isnan()
    for value in results.values():
        value[:, 1:][unsure] = 0
    return results


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="weft bench atlas", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a model of 2 layers of 64")
    parser.add_argument("--only", default="", choices=["", *TASKS], help="one of the two")
    parser.add_argument("--repeats", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads, for every contestant")
    parser.add_argument(
        "--sample", type=int, default=6, help="loops run so many heads and their time is scaled up; 0: all"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    about, rows = machine.describe(asked.threads), []
    if not asked.json:
        print(show.header(about), flush=True)
    for key in [asked.only] if asked.only else TASKS:
        rows.append(race(key, quick=asked.quick, sample=asked.sample, repeats=asked.repeats))
        if not asked.json:
            print("\n" + told(rows[-1]), flush=True)
    if asked.json:
        print(json.dumps({"machine": about, "rows": [row.to_data() for row in rows]}, indent=2))
    # A row that is void for a busy machine says so and is no failure; one whose results differ is.
    return 1 if any("differs" in why or "gives" in why for row in rows for why in row.void) else 0


def told(row: Row) -> str:
    """A row as text, with what was compared and what is scaled up."""
    apart = max((entry.difference or 0.0 for entry in row.entries.values()), default=0.0)
    lines = [show.text(row, BARS), f"    largest difference from hooks' {apart:.1e} of the largest value"]
    if row.sample:
        lines.append(
            f"    ≈: loops ran {row.sample} heads spread evenly, and their times are those of all heads at that rate"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
