"""What a draw knows while it writes: the statements so far run on plain tensors, and who depends on whom.

A statement that does not fit is thrown away before it is written, so almost every experiment is legal.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from tests.generated.eager import PlainRun, PlainSession, plain_weft
from tests.generated.experiment import Experiment, names_of
from tests.generated.zoo import Which, model_of

from weft.ir.nodes import Site

Place = tuple[str, int]
"""A run's name and a site's place in the model's order."""


class Misfit(Exception):
    """A statement that PyTorch, or causality, will not have."""


@dataclass
class Value:
    """A named value: its text, and the places it depends on."""

    text: str
    deps: frozenset[Place] = frozenset()


@dataclass
class Sketch:
    """An experiment being written."""

    seed: int
    which: Which
    rng: random.Random
    lines: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    values: list[Value] = field(default_factory=list)
    leaves: dict[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    flows: list[tuple[Place, Place]] = field(default_factory=list)
    shown: list[Place] = field(default_factory=list)
    leaf_places: list[Place] = field(default_factory=list)
    steps: dict[tuple[str, int], bool] = field(
        default_factory=dict
    )  # generations' sites written: at each step, or at one
    standing: set[int] = field(default_factory=set)  # sites that standing edits write, at each step by itself
    counter: int = 0

    def __post_init__(self) -> None:
        self.model = model_of(self.which)
        self.card = self.model.card
        generator = torch.Generator().manual_seed(self.seed)
        dtype = getattr(torch, self.which.dtype)

        def noise(run: PlainRun, site: Site, shape: tuple[int, ...]) -> torch.Tensor:
            spec = self.card.by_site[site][1]
            kind = getattr(torch, spec.dtype)
            drawn = torch.randn(shape, generator=generator, dtype=dtype)
            return drawn.to(kind) if kind.is_floating_point else torch.zeros(shape, dtype=kind)

        self.session = PlainSession(self.model, noise)
        self.names: dict[str, Any] = names_of(Experiment(self.seed, self.which, ()))
        self.names |= {"s": self.session, "model": self.model, "weft": plain_weft(_like)}

    # -- writing ---

    def name(self, letter: str) -> str:
        self.counter += 1
        return f"{letter}{self.counter}"

    def add(self, line: str, *features: str) -> None:
        """Write a statement; Misfit if PyTorch will not have it."""
        try:
            exec(line, self.names)
        except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise Misfit(f"{line}: {error}") from None
        self.lines.append(line)
        self.features.update(features)

    def mark(self) -> tuple[Any, ...]:
        """Where the draw stands, for `back_to`."""
        return (
            len(self.lines),
            len(self.values),
            len(self.flows),
            len(self.shown),
            set(self.features),
            dict(self.leaves),
        )

    def back_to(self, mark: tuple[Any, ...]) -> None:
        """Take back every statement since (what they did to the noise does not matter)."""
        lines, values, flows, shown, self.features, self.leaves = mark
        del self.lines[lines:], self.values[values:], self.flows[flows:], self.shown[shown:]

    def look(self, text: str) -> Any:
        """What an expression gives here; Misfit if nothing."""
        try:
            return eval(text, self.names)  # noqa: S307
        except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise Misfit(f"{text}: {error}") from None

    def shape(self, text: str) -> tuple[int, ...]:
        found = self.look(text)
        if not isinstance(found, torch.Tensor) or not found.numel():
            raise Misfit(f"{text} is empty")
        return tuple(found.shape)

    def keep(self, text: str, deps: frozenset[Place], *features: str) -> Value:
        """Give an expression a name."""
        found = self.look(text)
        if not isinstance(found, torch.Tensor) or not found.numel() or found.numel() > 20_000:
            raise Misfit(text)
        name = self.name("v")
        self.add(f"{name} = {text}", *features)
        value = Value(name, deps)
        if found.dtype.is_floating_point:
            self.values.append(value)
        return value

    def save(self, value: Value | str) -> None:
        text = value if isinstance(value, str) else value.text
        text = f"({text})" if not text.replace("_", "").isalnum() else text
        self.add(f'{text}.save("{self.name("out")}")')

    def const(self, *shape: int) -> str:
        return f"const({self.rng.randrange(1000)}, {', '.join(map(str, shape))})"

    # -- causality ---

    def reach(self, start: Place) -> dict[str, int]:
        """What a change at a place may change: from which site on, in each run."""
        found = {start[0]: start[1]}
        grew = True
        while grew:
            grew = False
            for (source, at), (run, place) in self.flows:
                if source in found and found[source] <= at and place < found.get(run, 1 << 30):
                    found[run], grew = place, True
        return found

    def may_write(self, place: Place, deps: frozenset[Place]) -> None:
        """Misfit if writing at `place` what depends on `deps` has no order, or changes what .now() has shown."""
        reach = self.reach(place)
        for run, at in deps:
            if (run, at) != place and reach.get(run, 1 << 30) <= at:
                raise Misfit("causality")
        if any(reach.get(run, 1 << 30) <= at for run, at in self.shown):
            raise Misfit("shown")

    def wrote(self, place: Place, deps: frozenset[Place]) -> None:
        self.flows += [(dep, place) for dep in deps if dep != place]


def _like(scalar: Any, targets: Any) -> Any:
    """Noise where gradients would be."""
    several = isinstance(targets, list | tuple)
    found = [torch.randn_like(each) for each in (targets if several else [targets])]
    return found if several else found[0]
