"""What the parts of `filter_heads` share: what was asked for, and what was found so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import xarray as xr

from weft.methods.filtering import effects as measured
from weft.methods.filtering.predicate import Predicate

if TYPE_CHECKING:
    from weft.methods.filtering.bench import Bench
    from weft.methods.filtering.mask import Training
    from weft.methods.filtering.pairs import Pairs
    from weft.methods.filtering.patch import Head
    from weft.methods.filtering.sheet import Place
    from weft.tasks import Accuracy


@dataclass
class State:
    """What the parts share: what they were asked, and what was found so far."""

    bench: Bench
    task: Any
    mode: str
    train: Pairs
    held: Pairs
    at: tuple[Place, ...]
    evaluate_at: tuple[Place, ...]
    how: Training
    keep: float
    random_sets: int
    kin: Mapping[str, Any]
    pairs: int
    seed: int
    heads: list[Head] = field(default_factory=list)
    called: str = "mask"
    """What the set of these heads is called: "mask", or "given" if they are the caller's."""
    given: dict[str, Predicate] = field(default_factory=dict)
    arrays: dict[str, xr.DataArray] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def located(self) -> Pairs:
        """Pairs that heads are found on, each by itself: the first of those that the mask learns from."""
        return self.train.take(range(min(self.pairs, len(self.train))))

    def add(self, name: str, values: Any, *dims: str, **coords: Any) -> None:
        self.arrays[name] = xr.DataArray(torch.as_tensor(values).numpy(), dims=dims, coords=coords, name=name)

    def others(self, heads: Sequence[Head]) -> list[list[Head]]:
        """Sets of as many random heads."""
        return measured.random_sets(self.bench.model, heads, self.random_sets, self.seed)


def rate(found: Accuracy) -> list[float]:
    """A rate and its interval."""
    return [found.value, *found.interval]


def rate_of(right: Iterable[bool], chance: float = 0.0) -> list[float]:
    from weft.tasks import Accuracy

    return rate(Accuracy(tuple(bool(each) for each in right), "options", chance))


RATE = ["rate", "low", "high"]
FEW = 15
"""Heads in a thousand that the paper's sets hold (79 of 5,120): the size of the others where the mask keeps none."""


def labels(heads: Sequence[Head]) -> list[str]:
    """Heads as the field writes them."""
    return [f"L{layer}H{head}" for layer, head in heads]
