"""Choosing the next token. What a row draws depends on the seed, its number and the step, never on its neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int


def choose(
    logits: Float[torch.Tensor, "row vocab"], rows: list[int], step: int, temperature: float, top_p: float, seed: int
) -> Int[torch.Tensor, " row"]:
    """One token for each row of `logits`; `rows` are their numbers in the whole batch."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, -1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    if top_p < 1:
        before = ordered.cumsum(-1) - ordered
        ordered = torch.where(before < top_p, ordered, torch.zeros_like(ordered))
    bounds = ordered.cumsum(-1)
    drawn = torch.tensor([_uniform(seed, row, step) for row in rows], dtype=bounds.dtype, device=bounds.device)
    place = torch.searchsorted(bounds, (drawn[:, None] * bounds[:, -1:]), right=True)
    last = (ordered > 0).sum(-1, keepdim=True) - 1
    return tokens.gather(-1, torch.minimum(place, last))[:, 0]


def _uniform(seed: int, row: int, step: int) -> float:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + row) * 1_000_003 + step & (1 << 63) - 1)
    return float(torch.rand((), generator=generator, dtype=torch.float64))
