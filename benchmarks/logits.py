"""The logits of few rows: weights times rows beside rows times weights, on this processor.

    weft bench logits           milliseconds and their ratio, for 1 to 512 rows

The engine takes weights times rows for 2 to `packed.FEW` rows. Both ways in turn, medians of `--repeats`; the values are
compared as well.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from weft.execute.packed import FEW, few_rows

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def seconds(way: Callable[[], torch.Tensor]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def compare(unembed: torch.nn.Linear, rows: int, repeats: int) -> tuple[float, float, float]:
    """Median seconds of rows times weights, of weights times rows, and the largest difference."""
    normed = torch.randn(rows, unembed.in_features)
    ways = [lambda: unembed(normed), lambda: few_rows(unembed, normed)]
    found: list[list[float]] = [[], []]
    for _ in range(repeats + 1):  # the first is to warm up
        for took, way in zip(found, ways, strict=True):
            took.append(seconds(way))
    plain, turned = (statistics.median(each[1:]) for each in found)
    return plain, turned, float((ways[0]() - ways[1]()).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(prog="weft bench logits", description=__doc__)
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=9)
    given = parser.parse_args()
    torch.manual_seed(0)
    unembed = torch.nn.Linear(given.width, given.vocab, bias=False)
    print(f"{given.vocab} × {given.width}, {torch.get_num_threads()} threads; the engine turns 2 to {FEW} rows")
    print(f"{'rows':>5} {'rows × weights':>15} {'weights × rows':>15} {'ratio':>7} {'difference':>11}")
    with torch.no_grad():
        for rows in ROWS:
            plain, turned, off = compare(unembed, rows, given.repeats)
            print(f"{rows:>5} {plain * 1e3:>12.2f} ms {turned * 1e3:>12.2f} ms {plain / turned:>6.2f}× {off:>11.1e}")


if __name__ == "__main__":
    main()
