"""The form in which a paper is written down: `Paper(name, title, …, models, settings, figures, differs)`.

Where a number comes from, its mark: R, read or computed from the authors' repository; S, from a second-hand summary, not
checked against the paper; M, recalled and not verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import weft

MARKS = {"R": "read from the authors' repository", "S": "from a second-hand summary", "M": "recalled, unverified"}
GIB = 2**30


@dataclass(frozen=True)
class Weights:
    """A model that a paper used. The sizes tell whether a model at hand is it; its name alone does not."""

    id: str
    parameters: int
    n_layers: int
    n_heads: int
    d_model: int
    d_vocab: int
    note: str = ""

    @property
    def bytes(self) -> int:
        """In bfloat16, two bytes a parameter."""
        return 2 * self.parameters

    @property
    def memory(self) -> str:
        """What a machine needs."""
        return (
            f"{self.bytes / GIB:.1f} GiB for the weights in bfloat16, and room for the runs "
            '(weft.load(…, memory="8GB") bounds what they take)'
        )

    def is_of(self, card: Any) -> bool:
        """Whether a model with this card is it: its name (the last part of the id), and every size."""
        name = str(card.name).rstrip("/").rsplit("/", 1)[-1].lower()
        sizes = {size: getattr(self, size) for size in ("n_layers", "n_heads", "d_model", "d_vocab")}
        return name == self.id.rsplit("/", 1)[-1].lower() and all(card.sizes.get(n) == v for n, v in sizes.items())


@dataclass(frozen=True)
class Setting:
    """A choice of the paper's, by the name that weft's method has for it."""

    name: str
    value: Any
    mark: str
    where: str


@dataclass(frozen=True)
class Figure:
    """A number that the paper gives. `key` says where weft's is: part of the run / array / labels of its axes.

    `upto`: the other end, where the paper gives a range. `tolerance`: the paper's own ±, where it is known. `why`: with no
    key, why weft has no number beside it.
    """

    what: str
    value: float
    mark: str
    model: str
    key: str = ""
    unit: str = "share"
    tolerance: float | None = None
    upto: float | None = None
    of: str = ""
    why: str = ""

    @property
    def shown(self) -> str:
        """As the paper has it."""
        ends = [f"{end:g}" for end in (self.value, self.upto) if end is not None]
        more = f" ± {self.tolerance:g}" if self.tolerance is not None else ""
        unit = {"%": " %", "share": ""}.get(self.unit, f" {self.unit}")
        return f"{' to '.join(ends)}{more}{unit}{f' ({self.of})' if self.of else ''}"


@dataclass(frozen=True)
class Paper:
    """A paper: what it ran, on what, and what came out. `differs`: what weft does otherwise, and why."""

    name: str
    title: str
    authors: str
    arxiv: str
    venue: str
    data: str
    models: tuple[Weights, ...]
    settings: tuple[Setting, ...]
    figures: tuple[Figure, ...]
    differs: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        """The settings by name."""
        return {each.name: each.value for each in self.settings}

    def changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        """The settings with some of them changed; ProgramError names one that the paper has not."""
        known = self.values()
        if unknown := sorted(set(changes) - set(known)):
            raise weft.errors.ProgramError(
                f"{self.name} has no setting {', '.join(map(repr, unknown))}; it has {', '.join(known)}"
            )
        return known | changes

    def command(self, model: str) -> str:
        """What reproduces it on a machine that has the weights."""
        return f"weft reproduce {self.name} --model {model} --dtype bfloat16 --device auto --out {self.name}"
