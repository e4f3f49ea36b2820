"""The public interface over plain tensors: sites are ordinary tensors, so ordinary PyTorch says what a statement does.

The generator runs each statement here to see that it fits and what shape it gives (sites hold noise); the oracle runs whole
experiments here, with the numbers that its hooks found.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

import weft
from weft.ir.nodes import Site
from weft.models.names import resolve, resolve_module

Given = Callable[["PlainRun", Site, tuple[int, ...]], torch.Tensor]
"""What a site of a run holds, in the presentation of DESIGN §7 (left-padded with 0)."""


class Plain(torch.Tensor):
    """An ordinary tensor with the few methods that traced ones have."""

    saved: dict[str, torch.Tensor]

    def save(self, name: str) -> Plain:
        SAVED[-1][name] = self.detach().clone().as_subclass(torch.Tensor)
        return self

    def now(self) -> torch.Tensor:
        return self.detach().clone().as_subclass(torch.Tensor)

    def backward(self, *args: Any, **kwargs: Any) -> None:
        """Gradients are not this file's affair."""


SAVED: list[dict[str, torch.Tensor]] = [{}]
"""Where `save` puts values: the innermost session's results."""


class PlainSession:
    """A session: runs in the order made, saved values by name."""

    def __init__(self, model: Any, given: Given) -> None:
        self.model, self.given = model, given
        self.runs: list[PlainRun] = []
        self.generations: list[PlainGeneration] = []

    def run(self, prompts: Any) -> PlainRun:
        return self.add(PlainRun(self, *tokens_of(prompts)))

    def add(self, run: PlainRun) -> PlainRun:
        run.number = len(self.runs)
        self.runs.append(run)
        return run

    def generate(self, prompts: Any, **options: Any) -> PlainGeneration:
        generation = PlainGeneration(self, *tokens_of(prompts), options)
        self.generations.append(generation)
        return generation


def tokens_of(prompts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids left-padded to [batch, pos], and each row's first real position."""
    if isinstance(prompts, torch.Tensor):
        return prompts, torch.zeros(prompts.shape[0], dtype=torch.long)
    texts = [prompts] if isinstance(prompts, str) else prompts
    rows = [[int(word[1:]) for word in row.split()] if isinstance(row, str) else list(row) for row in texts]
    longest = max(map(len, rows))
    start = torch.tensor([longest - len(row) for row in rows])
    return torch.tensor([[0] * (longest - len(row)) + row for row in rows]), start


_OWN = frozenset("session card number tokens start batch pos keys rows mask sites step owner".split())


class PlainRun:
    """A run whose sites are plain tensors, made when first asked for."""

    def __init__(self, session: PlainSession, tokens: torch.Tensor, start: torch.Tensor) -> None:
        self.session, self.card, self.tokens, self.start = session, session.model.card, tokens, start
        self.number = -1
        self.batch, self.pos = tokens.shape
        self.keys = self.pos
        self.rows = torch.arange(self.batch)
        self.mask = torch.arange(self.pos)[None, :] >= start[:, None]
        self.sites: dict[Site, Plain] = {}

    def fork(self) -> PlainRun:
        return self.session.add(PlainRun(self.session, self.tokens, self.start))

    def at(self, place: int) -> torch.Tensor:
        return torch.full((self.batch,), self.pos + place) if place < 0 else self.start + place

    def site(self, site: Site) -> Plain:
        if site not in self.sites:
            shape = self.card.by_site[site][1].type(self.batch, self.pos, self.keys).shape
            self.sites[site] = self.session.given(self, site, shape).clone().as_subclass(Plain)
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

    def __getattr__(self, side: str) -> Plain:
        run, path = self._of
        return run.site(resolve_module(path, side, run.card))

    def __setattr__(self, side: str, value: Any) -> None:
        run, path = self._of
        run.assign(resolve_module(path, side, run.card), value)


class PlainGeneration:
    """A generation: its steps are runs of the shapes that each step has (the numbers are only ever noise)."""

    def __init__(self, session: PlainSession, tokens: torch.Tensor, start: torch.Tensor, options: Any) -> None:
        self.session, self.prompt_tokens, self.start, self.options = session, tokens, start, options
        self.batch, self.pos = tokens.shape
        self.rows = torch.arange(self.batch)
        self.steps: dict[int, PlainRun] = {}

    def step(self, number: int) -> PlainRun:
        if number not in self.steps:
            tokens = self.prompt_tokens if number == 0 else self.prompt_tokens[:, :1]
            start = self.start if number == 0 else torch.zeros_like(self.start)
            self.steps[number] = run = PlainRun(self.session, tokens, start)
            run.keys = self.pos + max(number, 0)
        return self.steps[number]

    @property
    def each(self) -> PlainRun:
        return self.step(-1)

    def fork(self) -> PlainGeneration:
        generation = PlainGeneration(self.session, self.prompt_tokens, self.start, self.options)
        self.session.generations.append(generation)
        return generation


class PlainTorch:
    """torch, whose zeros can be saved: what a factory gives in a session is a value of the session."""

    @staticmethod
    def zeros(*shape: int, dtype: torch.dtype) -> Plain:
        return torch.zeros(*shape, dtype=dtype).as_subclass(Plain)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def plain_weft(grad: Callable[[Any, Any], Any]) -> Any:
    """The metrics of weft (they take ordinary tensors) with another `grad`."""
    metrics = {name: getattr(weft, name) for name in ("logit_diff", "log_prob", "prob", "kl", "cross_entropy")}
    return SimpleNamespace(**metrics, grad=grad)
