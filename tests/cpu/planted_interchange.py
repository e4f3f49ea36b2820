"""Interchange by plain hooks: what a run says when parts of its residual stream come from another run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from planted_hooks import all_of, answers, run, share, tokens
from torch import Tensor

Moved = Sequence[tuple[int, int]]
"""Pairs (where in the other run, where here), the same in each row."""


def moved(value: list[Tensor], layers: Iterable[int], pairs: Moved) -> Any:
    """Sets the stream after `layers` at these places to that of another run."""
    chosen = set(layers)

    def edit(kind: str, layer: int, into: Tensor) -> None:
        if kind == "resid" and layer in chosen:
            for there, here in pairs:
                into[:, here] = value[layer][:, there]

    return edit


def streams(planted: Any, texts: list[str]) -> list[Tensor]:
    seen = run(planted, tokens(planted, texts))[1]
    return [seen["resid", layer] for layer in range(planted.truth.n_layers)]


def places(planted: Any, text: str, *words: str) -> list[int]:
    """Where these words stand first in a text."""
    ids = tokens(planted, [text])[0].tolist()
    return [ids.index(planted.tokenizer.convert_tokens_to_ids(f" {word}")) for word in words]


def by_layer(
    planted: Any, here: list[str], there: list[str], pairs: Moved, expected: list[str], *, upto: bool = False,
    frozen: Sequence[int] = (),
) -> tuple[float, ...]:  # fmt: skip
    """For each layer, how often the answer is as expected if the stream there (or up to there) comes from the other
    texts; the places `frozen` keep what they had, in all layers."""
    other, own, ids = streams(planted, there), streams(planted, here), tokens(planted, here)
    every = range(planted.truth.n_layers)
    keep = moved(own, every, [(at, at) for at in frozen])
    rows = []
    for layer in every:
        patch = moved(other, range(layer + 1) if upto else [layer], pairs)
        rows.append(share(answers(planted, run(planted, ids, all_of(patch, keep))[0]), expected))
    return tuple(rows)
