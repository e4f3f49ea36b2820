"""How weft's time on a head sweep grows with heads, prompts and tokens, up to four times each, against the work planned.

    weft bench growth [--model gpt2] [--quick] [--write-docs]

Linear in the planned work or better is what is asked: seconds a GFLOP must not rise. `--write-docs` draws docs/growth.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch

from sweeping import machine, show
from sweeping.models import SHAPES
from sweeping.rivals import weft_session
from sweeping.tasks import Data, head_sweep, small

STEPS = (1, 2, 3, 4)
RISE = 1.25
"""How much more a GFLOP may take at four times the size: medians of a few runs are no nearer than this."""


@dataclass(frozen=True)
class Point:
    """One size of the sweep."""

    along: str
    times: int
    gflop: float
    seconds: float
    others: float


def sizes(along: str, times: int, model: str, quick: bool) -> Data:
    """The sweep with `times` as many heads, prompts or tokens as the smallest, the other two at their smallest."""
    shape = SHAPES[model]
    prompts, tokens = (2, 4) if quick else (4, 16)
    lengths = [tokens * (times if along == "tokens" else 1)] * (prompts * (times if along == "prompts" else 1))
    data = head_sweep(shape, lengths)
    kept = times if along == "heads" else 1  # of every four heads
    return replace(data, patches=[patch for index, patch in enumerate(data.patches) if index % 4 < kept])


def measure(model: str, quick: bool, repeats: int) -> list[Point]:
    """Every size in each round, so that a slow moment falls on all of them."""
    handle = weft_session.setup(model)
    cases = {(along, n): sizes(along, n, model, quick) for along in ("heads", "prompts", "tokens") for n in STEPS}
    taken: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    work: dict[tuple[str, int], float] = {}
    busy = [0.0, 0.0]
    for data in cases.values():
        weft_session.heads(handle, small(data))
    for _ in range(repeats):
        for case, data in cases.items():
            before = machine.now()
            started = time.perf_counter()
            weft_session.heads(handle, data)
            taken[case].append(time.perf_counter() - started)
            work[case] = float(weft_session.WORK.get("flops", 0)) / 1e9
            for i, each in enumerate(machine.others(before, machine.now())):
                busy[i] += each
    others = min(busy[0] / max(busy[1], 1e-9), 1.0)
    return [Point(*case, work[case], statistics.median(taken[case]), others) for case in cases]


def rise(points: list[Point], along: str) -> float:
    """Seconds a GFLOP at the largest size, over those at the smallest."""
    rates = {point.times: point.seconds / point.gflop for point in points if point.along == along and point.gflop}
    return rates[max(rates)] / rates[min(rates)] if rates else float("nan")


def draw(points: list[Point], path: Path) -> None:
    """Time against planned work, a line for each way of growing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for along in ("heads", "prompts", "tokens"):
        line = [point for point in points if point.along == along]
        axes.plot([point.gflop for point in line], [point.seconds for point in line], marker="o", label=along)
    axes.set(xlabel="planned GFLOP", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False, title="1 to 4 times as many")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(prog="weft bench growth", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="gpt2", choices=list(SHAPES))
    parser.add_argument("--quick", action="store_true", help="a model of 2 layers of 64")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write-docs", action="store_true", help="draw docs/growth.png")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    about = machine.describe(given.threads)
    points = measure("tiny" if given.quick else given.model, given.quick, given.repeats)
    report: dict[str, Any] = {"machine": about, "points": [asdict(point) for point in points]}
    if given.json:
        print(json.dumps(report, indent=2))
    else:
        _print(about, points)
    if given.write_docs:
        draw(points, Path(__file__).parents[1] / "docs" / "growth.png")
    return 0


def _print(about: dict[str, Any], points: list[Point]) -> None:
    print(show.header(about))
    if points[0].others > 0.05:
        print(f"VOID: not idle: other processes took {points[0].others:.0%} of the cores")
    for along in ("heads", "prompts", "tokens"):
        for point in points:
            if point.along == along:
                print(f"  {along:8} ×{point.times}  {point.gflop:9.4g} GFLOP  {show.seconds(point.seconds):>9}")
        value = rise(points, along)
        print(f"  seconds a GFLOP, ×4 over ×1: {value:.2f} ({'no worse than linear' if value <= RISE else 'WORSE'})")


if __name__ == "__main__":
    sys.exit(main())
