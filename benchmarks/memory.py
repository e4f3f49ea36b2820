"""How much memory weft takes above the model for a head sweep that would not fit if it were run at once.

    weft bench memory [--prompts 64] [--tokens 128] [--quick]

Task (a) at 64 × 128: the base runs' keys and values alone are 604 MB and `logits[:, -1]` of all rows 1.85 GB. The peak is the
kernel's own (VmHWM), counted from what the process held with the model loaded and warmed up.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch

from sweeping.models import SHAPES
from sweeping.rivals import hooks, weft_session
from sweeping.tasks import head_sweep, small

BUDGET = 500_000_000
"""Bytes above the model that the sweep may plan for; what is measured may be 1.2 times that."""


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at the highest since the mark was reset."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def main() -> int:
    parser = argparse.ArgumentParser(prog="weft bench memory", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--model", default="gpt2", choices=list(SHAPES))
    parser.add_argument("--quick", action="store_true", help="4 prompts of 8 tokens on a model of 2 layers of 64")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="with no budget, to see what all at once takes")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model, lengths = given.model, [given.tokens] * given.prompts
    if given.quick:
        model, lengths = "tiny", [8] * 4

    data = head_sweep(SHAPES[model], lengths)
    handle = weft_session.setup(model, memory=None if given.whole else BUDGET)
    few = head_sweep(SHAPES[model], [4, 4])
    weft_session.heads(handle, small(few))  # what is made once, on first use, is not the sweep's
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    result = weft_session.heads(handle, data)
    above = resident("VmHWM") - before

    some = replace(data, patches=[data.patches[0], data.patches[-1]])
    wanted = hooks.heads(hooks.setup(model), some)
    apart = float((result[[0, -1]] - wanted).abs().max() / wanted.abs().max())
    report = {"above_model_mb": above / 1e6, "budget_mb": BUDGET / 1e6, "ratio": above / BUDGET, "difference": apart}
    if given.json:
        print(json.dumps(report, indent=2))
    else:
        print(f"{len(data.patches)} patches of {len(lengths)} × {lengths[0]} tokens on {model}")
        print(f"peak above the model {above / 1e6:.0f} MB, {above / BUDGET:.2f} of {BUDGET / 1e6:.0f} MB (asked ≤ 1.2)")
        print(f"largest difference from plain hooks, first and last patch: {apart:.1e} of the largest value")
    return 0 if apart < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
