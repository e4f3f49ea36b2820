"""The experiment that both demos make: every head's z, at the last position, from one prompt into another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import weft


def patch_every_head(model: Any, clean: str, corrupted: str, answers: Sequence[str | int]) -> Any:
    """The finished session, whose result "effect" is [layer, head]: 0 for none, 1 for the clean prompt's logit difference.

    `answers`: what follows the clean and the corrupted prompt, each one token.
    """
    with model.session() as s:
        good, bad = s.run(clean), s.run(corrupted)
        top, bottom = (weft.logit_diff(run.logits[:, -1], *answers) for run in (good, bad))
        grid: list[torch.Tensor] = []
        for layer in range(model.n_layers):
            for head in range(model.n_heads):
                patched = bad.fork()
                patched.z[layer][:, -1, head] = good.z[layer][:, -1, head]
                grid.append(weft.logit_diff(patched.logits[:, -1], *answers).mean())
        patched_to = torch.stack(grid).reshape(model.n_layers, model.n_heads)
        effect: Any = (patched_to - bottom.mean()) / (top - bottom).mean()  # .save is the traced tensor's own
        effect.save("effect")
    return s
