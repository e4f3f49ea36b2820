"""Activations to disk: weft's `model.collect` against a batched loop by hand, sorted by length, and its peak memory.

    weft bench collect [--prompts 1000] [--quick]

Ragged prompts of 8 to 256 random tokens, every `resid_post` of a random model of GPT-2's small size. The loop by hand runs the
trunk alone with a hook on each block, prompts sorted by length and padded on the right, and writes safetensors. Both take
their turns over the same slices of the prompts, so that a slow moment falls on both. The peak is the kernel's own (VmHWM) over
weft's first slice, counted from what the process held with the model loaded and warmed up.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from safetensors.torch import save_file

import weft
from sweeping import machine
from sweeping.models import SHAPES, block, shared, tokenizer

BUDGET = 500_000_000
"""Bytes above the model that collecting may plan for; what is measured may be 1.2 times that."""
BATCH = 32
"""Prompts of a batch of the loop by hand."""


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the highest since the mark was reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def ragged(count: int, vocabulary: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(vocabulary) for _ in range(draw.randint(8, 256))] for _ in range(count)]


def by_hand(name: str, rows: list[list[int]], to: Path) -> None:
    """The loop that a careful person writes: sorted, batched, padded, hooked, stripped of padding, saved."""
    model, shape = shared(name), SHAPES[name]
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_: Any, __: Any, out: Any) -> None:
            found[layer] = out[0] if isinstance(out, tuple) else out

        return hook

    hooks = [block(model, shape, layer).register_forward_hook(keep(layer)) for layer in range(shape.layers)]
    trunk = model.transformer if shape.family == "gpt2" else model.model
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    to.mkdir()
    for number, at in enumerate(range(0, len(order), BATCH)):
        batch = [rows[index] for index in order[at : at + BATCH]]
        longest = len(batch[0])
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
        with torch.no_grad():
            trunk(input_ids=ids, attention_mask=mask, use_cache=False)
        save_file(
            {f"resid_post[{layer}]": x[mask.bool()] for layer, x in found.items()}, to / f"{number:06d}.safetensors"
        )
    for each in hooks:
        each.remove()


def main() -> int:
    parser = argparse.ArgumentParser(prog="weft bench collect", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--slices", type=int, default=4, help="turns: each contestant runs a slice, then the other")
    parser.add_argument("--model", default="gpt2", choices=list(SHAPES))
    parser.add_argument("--quick", action="store_true", help="40 prompts on a model of 2 layers of 64")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", help="where to write; a temporary folder if not given")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    name, count = ("tiny", 40) if given.quick else (given.model, given.prompts)
    rows = ragged(count, SHAPES[name].vocabulary)
    model = weft.load(shared(name), tokenizer=tokenizer(SHAPES[name].vocabulary), name=name)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        report = measure(model, name, rows, Path(temporary), given.slices)
    report["machine"] = machine.describe(given.threads)
    if given.json:
        print(json.dumps(report, indent=2))
    else:
        show(report, name, rows)
    return 0 if report["difference"] < 1e-4 else 1


def measure(model: Any, name: str, rows: list[list[int]], folder: Path, slices: int) -> dict[str, Any]:
    """Seconds of both over all slices, the peak of the first, and how far the numbers are apart."""
    few = [row[:8] for row in rows[:2]]
    by_hand(name, few, folder / "warm-hand")
    model.collect(few, "resid_post", to=folder / "warm", progress=False)  # what is made once is not collecting's
    spent = {"weft": 0.0, "hand": 0.0}
    busy, peak, apart = [0.0, 0.0], 0, 0.0
    for turn in range(slices):
        part = rows[turn::slices]
        before_all = machine.now()
        held = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        started = time.perf_counter()
        found = model.collect(part, "resid_post", to=folder / "weft", budget=BUDGET, progress=False)
        spent["weft"] += time.perf_counter() - started
        peak = max(peak, resident("VmHWM") - held) if turn == 0 else peak
        started = time.perf_counter()
        by_hand(name, part, folder / "hand")
        spent["hand"] += time.perf_counter() - started
        for index, each in enumerate(machine.others(before_all, machine.now())):
            busy[index] += each
        apart = max(apart, difference(found, folder / "hand", part))
        for each in ("weft", "hand"):
            shutil.rmtree(folder / each)
    return {
        "weft_s": spent["weft"], "hand_s": spent["hand"], "speed": spent["hand"] / spent["weft"], "difference": apart,
        "peak_mb": peak / 1e6, "budget_mb": BUDGET / 1e6, "peak_ratio": peak / BUDGET,
        "others": min(busy[0] / max(busy[1], 1e-9), 1.0),
    }  # fmt: skip


def difference(found: weft.Collection, hand: Path, rows: list[list[int]]) -> float:
    """The largest difference of the last layer over the first and the last prompt by length, relative to the largest."""
    from safetensors.torch import load_file

    order = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    site, files, worst = found.sites[-1], sorted(hand.iterdir()), 0.0
    first, last = load_file(files[0])[site][: len(rows[order[0]])], load_file(files[-1])[site][-len(rows[order[-1]]) :]
    for number, wanted in ((order[0], first), (order[-1], last)):
        mine = found.prompt(number)[site]
        worst = max(worst, float((mine - wanted).abs().max() / wanted.abs().max()))
    return worst


def show(report: dict[str, Any], name: str, rows: list[list[int]]) -> None:
    if report["others"] > 0.05:
        print(f"VOID: not idle: other processes took {report['others']:.0%} of the cores")
    print(f"{len(rows)} prompts, {sum(map(len, rows)):,} tokens, every resid_post of {name}")
    print(f"weft {report['weft_s']:.1f} s, by hand {report['hand_s']:.1f} s: {report['speed']:.2f} × (asked ≥ 0.9)")
    print(f"peak {report['peak_mb']:.0f} MB, {report['peak_ratio']:.2f} of {report['budget_mb']:.0f} MB (asked ≤ 1.2)")
    print(f"largest difference {report['difference']:.1e} of the largest value")


if __name__ == "__main__":
    sys.exit(main())
