"""Choosing the next token. What a row draws depends on the seed, its number and the step, never on its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def eos_of(config: Mapping[str, object]) -> list[int]:
    """The tokens with which a row of this model ends."""
    found = config.get("eos_token_id")
    return [] if found is None else [found] if isinstance(found, int) else list(found)  # type: ignore[call-overload]


def pad_of(config: Mapping[str, object]) -> int:
    """What stands where a row has ended."""
    pad = config.get("pad_token_id")
    return pad if isinstance(pad, int) and pad >= 0 else (eos_of(config) or [0])[0]


def ended(row: list[int], stops: Sequence[str | tuple[int, ...]], decode: Callable[[list[int]], str] | None) -> bool:
    """Whether new tokens end with one of these, or their text holds one (however it falls into tokens)."""
    for stop in stops:
        if isinstance(stop, str):
            assert decode is not None  # a text was turned down before, where there is no tokenizer
            if stop in decode(row):
                return True
        elif tuple(row[-len(stop) :]) == tuple(stop):
            return True
    return False
