"""The public interface over plain tensors: sites are ordinary tensors, so ordinary PyTorch says what a statement does.

The generator runs each statement here to see that it fits and what shape it gives (sites hold noise); the oracle runs whole
experiments here, with the numbers that its hooks found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

import weft
from weft.ir.nodes import Site
from weft.models.names import resolve, resolve_module

Given = Callable[["PlainRun", Site, tuple[int, ...]], torch.Tensor]
"""What a site of a run holds, in the presentation of DESIGN §7 (left-padded with 0)."""


def _save(self: torch.Tensor, name: str) -> torch.Tensor:
    # A gradient that is not taken yet says of what it is, and with respect to what.
    SAVED[-1][name] = getattr(self, "gradient", None) or self.detach().clone()
    return self


def _now(self: torch.Tensor) -> torch.Tensor:
    return self.detach().clone()


def _backward(self: torch.Tensor) -> None:
    BACKWARD[-1].append(self)


@contextmanager
def traced_methods() -> Iterator[None]:
    """Ordinary tensors have the few methods that traced ones have. (A subclass would not do: autograd loses its writes.)"""
    before = torch.Tensor.backward
    plain: Any = torch.Tensor
    plain.save, plain.now, plain.backward = _save, _now, _backward
    try:
        yield
    finally:
        plain.backward = before
        del plain.save, plain.now


SAVED: list[dict[str, Any]] = [{}]
"""Where `save` puts values: the innermost session's results."""
BACKWARD: list[list[torch.Tensor]] = [[]]
"""Whose gradients are wanted at leaves."""


class PlainSession:
    """A session: runs in the order made, saved values by name."""

    def __init__(self, model: Any, given: Given) -> None:
        self.model, self.given = model, given
        self.runs: list[PlainRun] = []
        self.generations: list[PlainGeneration] = []
        self.touched: list[tuple[PlainRun, Site]] = []

    def run(self, prompts: Any) -> PlainRun:
        return self.add(PlainRun(self, *tokens_of(prompts)))

    def add(self, run: PlainRun) -> PlainRun:
        run.number = len(self.runs)
        self.runs.append(run)
        return run

    def generate(self, prompts: Any, **options: Any) -> PlainGeneration:
        return PlainGeneration(self, *tokens_of(prompts), options)


def tokens_of(prompts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids left-padded to [batch, pos], and each row's first real position."""
    if isinstance(prompts, torch.Tensor):
        return prompts, torch.zeros(prompts.shape[0], dtype=torch.long)
    texts = [prompts] if isinstance(prompts, str) else prompts
    rows = [[int(word[1:]) for word in row.split()] if isinstance(row, str) else list(row) for row in texts]
    longest = max(map(len, rows))
    start = torch.tensor([longest - len(row) for row in rows])
    return torch.tensor([[0] * (longest - len(row)) + row for row in rows]), start


_OWN = frozenset("session card number tokens start batch pos keys rows mask sites steps".split())


class PlainRun:
    """A run whose sites are plain tensors, made when first asked for."""

    def __init__(self, session: PlainSession, tokens: torch.Tensor, start: torch.Tensor) -> None:
        self.session, self.card, self.tokens, self.start = session, session.model.card, tokens, start
        self.number = -1
        self.steps = 0  # of g.each: its sites have an axis of steps in front
        self.batch, self.pos = tokens.shape
        self.keys = self.pos
        self.rows = torch.arange(self.batch)
        self.mask = torch.arange(self.pos)[None, :] >= start[:, None]
        self.sites: dict[Site, torch.Tensor] = {}

    def fork(self) -> PlainRun:
        return self.session.add(PlainRun(self.session, self.tokens, self.start))

    def at(self, place: int) -> torch.Tensor:
        return torch.full((self.batch,), self.pos + place) if place < 0 else self.start + place

    def site(self, site: Site) -> torch.Tensor:
        if site not in self.sites:
            shape = self.card.by_site[site][1].type(self.batch, self.pos, self.keys).shape
            shape = (self.steps, *shape) if self.steps else shape
            self.session.touched.append((self, site))
            self.sites[site] = self.session.given(self, site, shape).clone()
        return self.sites[site]

    def assign(self, site: Site, value: Any) -> None:
        x = self.site(site)
        if value is not x:
            x[...] = value

    def module(self, path: str) -> PlainModule:
        return PlainModule(self, path)

    def __getattr__(self, name: str) -> Any:
        if name in self.card.layers_of or name == "resid_pre":
            return PlainLayers(self, name)
        return self.site(resolve(name, None, self.card))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            self.assign(resolve(name, None, self.card), value)


class PlainLayers:
    """run.z: indexed by layer."""

    def __init__(self, run: PlainRun, name: str) -> None:
        self.run, self.name = run, name

    def __getitem__(self, layer: Any) -> torch.Tensor:
        count = self.run.card.layers_of.get(self.name, self.run.card.sizes["n_layers"])
        if isinstance(layer, slice):
            return torch.stack([self[each] for each in range(*layer.indices(count))])
        return self.run.site(resolve(self.name, int(layer) % count, self.run.card))

    def __setitem__(self, layer: int, value: Any) -> None:
        self.run.assign(resolve(self.name, layer, self.run.card), value)


class PlainModule:
    """run.module(path): .input and .output, to be read or assigned."""

    def __init__(self, run: PlainRun, path: str) -> None:
        object.__setattr__(self, "_of", (run, path))

    def __getattr__(self, side: str) -> torch.Tensor:
        run, path = self._of
        return run.site(resolve_module(path, side, run.card))

    def __setattr__(self, side: str, value: Any) -> None:
        run, path = self._of
        run.assign(resolve_module(path, side, run.card), value)


class PlainGeneration:
    """A generation: its steps are runs of the shapes that each step has ."""

    def __init__(self, session: PlainSession, tokens: torch.Tensor, start: torch.Tensor, options: Any) -> None:
        self.session, self.prompt_tokens, self.start, self.options = session, tokens, start, options
        self.batch, self.pos = tokens.shape
        self.rows = torch.arange(self.batch)
        self.steps: dict[int, PlainRun] = {}
        self.number = len(session.generations)
        session.generations.append(self)

    def step(self, number: int) -> PlainRun:
        if number not in self.steps:
            tokens = self.prompt_tokens if number == 0 else self.prompt_tokens[:, :1]
            start = self.start if number == 0 else torch.zeros_like(self.start)
            self.steps[number] = run = PlainRun(self.session, tokens, start)
            run.keys = self.pos + max(number, 0)
            run.number = -1 - (self.number * 1000 + number + 1)
            run.steps = int(self.options["max_new_tokens"]) if number < 0 else 0
        return self.steps[number]

    @property
    def each(self) -> PlainRun:
        return self.step(-1)

    def fork(self) -> PlainGeneration:
        return PlainGeneration(self.session, self.prompt_tokens, self.start, self.options)


def plain_weft(grad: Callable[[Any, Any], Any]) -> Any:
    """The metrics of weft (they take ordinary tensors) with another `grad`."""
    metrics = {name: getattr(weft, name) for name in ("logit_diff", "log_prob", "prob", "kl", "cross_entropy")}
    return SimpleNamespace(**metrics, grad=grad)
