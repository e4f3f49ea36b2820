"""The two maps of all heads: by the methods' own functions, and by one forward pass a head with a plain hook.

Both give [head, what, row], so that one comparison holds for all: "what" is the effect alone, or how far the target's score
moved and whether it was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mapping import given
from sweeping.models import block
from sweeping.rivals.hooks import Handle, hooked, inputs
from weft.methods.filtering.bench import Bench
from weft.methods.filtering.effects import effects, every_head
from weft.methods.filtering.pairs import Pairs, chosen
from weft.methods.functions.effects import indirect_effects
from weft.methods.functions.prompts import Asked

Head = tuple[int, int]
NEAR = 1e-4
"""Two words whose scores differ by less than this part of the largest may be chosen either way."""


@dataclass(frozen=True)
class Effects:
    """P(answer | one head's z at the last token set to its mean) − P(answer), as `function_vector` measures it."""

    name: str
    asked: Asked
    z: torch.Tensor
    passes: int = 1
    """Forward passes of a loop besides one a head."""

    @classmethod
    def of(cls, name: str, rows: int) -> Effects:
        means = taken(name, given.shown(name, rows, shuffled=False).texts, "attn.c_proj", before=True)
        shape = Handle(name).shape
        z = torch.stack([each.mean(0).reshape(shape.heads, shape.d_head) for each in means])
        return cls(name, given.shown(name, rows, shuffled=True), z)

    @property
    def title(self) -> str:
        return f"average indirect effect of every head's z, {given.lengths(given.ids(self.name, self.asked.texts))}"

    def small(self) -> Effects:
        return replace(self, asked=self.asked.take(range(2)))

    def weft(self) -> torch.Tensor:
        return indirect_effects(given.model(self.name), self.asked, self.z, "auto", False).values.flatten(0, 1)[:, None]

    @torch.no_grad()
    def hooks(self, heads: Sequence[Head], **options: Any) -> torch.Tensor:
        loop = Loop(self.name, self.asked.texts, "attn.c_proj", True, options)
        chance = lambda logits: logits.log_softmax(-1).gather(-1, self.asked.ids[:, None])[:, 0].exp()  # noqa: E731
        own = chance(loop.run())
        return torch.stack([chance(loop.run(head, self.z[head])) - own for head in heads])[:, None]


@dataclass(frozen=True)
class Queries:
    """One head's query at the last token carried over from the counterfactual, as `filter_heads` finds single heads."""

    name: str
    pairs: Pairs
    passes: int = 2

    @classmethod
    def of(cls, name: str, rows: int) -> Queries:
        return cls(name, given.pairs(name, rows))

    @property
    def title(self) -> str:
        return f"every head's query patched alone, {given.lengths(given.ids(self.name, self.pairs.dst.texts))}"

    def small(self) -> Queries:
        return replace(self, pairs=self.pairs.take(range(2)))

    def weft(self) -> torch.Tensor:
        model = given.model(self.name)
        found = effects(Bench(model), self.pairs, {head: [head] for head in every_head(model)}, (-1,))
        return torch.stack([torch.stack([each.moved, each.right.float()]) for each in found.values()])

    @torch.no_grad()
    def hooks(self, heads: Sequence[Head], **options: Any) -> torch.Tensor:
        pairs, rows = self.pairs, torch.arange(len(self.pairs))
        queries = taken(self.name, pairs.src.prompts, "attn.c_attn", before=False, **options)
        loop = Loop(self.name, pairs.dst.texts, "attn.c_attn", False, options)
        own = loop.run().gather(-1, pairs.dst.ids)
        found = torch.stack(
            [loop.run(head, queries[head[0]][:, loop.span(head)]).gather(-1, pairs.dst.ids) for head in heads]
        )
        moved = found[:, rows, pairs.target] - own[rows, pairs.target]
        right = (chosen(found, pairs.dst.options) == pairs.target).float()
        near = given.undecided(found.masked_fill(~pairs.dst.options, -torch.inf), NEAR * float(moved.abs().max()))
        return torch.stack([moved, right.masked_fill(near, torch.nan)], 1)


class Loop:
    """The default forward of all prompts at once, padded on the left, with a hook on one head's part of a module."""

    def __init__(self, name: str, texts: Sequence[str], inside: str, before: bool, options: dict[str, Any]) -> None:
        self.handle = Handle(name)
        self.inputs = {**inputs(self.handle, given.ids(name, texts)), **options}
        self.inside, self.before = inside, before

    def span(self, head: Head) -> slice:
        """A head's part of z side by side, or of q, k and v, of which q is first."""
        size = self.handle.shape.d_head
        return slice(head[1] * size, (head[1] + 1) * size)

    def run(self, head: Head | None = None, value: torch.Tensor | None = None) -> torch.Tensor:
        """The last token's logits [row, vocab]."""
        if head is None:
            return self.handle.model(**self.inputs).logits[:, -1]

        def patch(x: torch.Tensor) -> torch.Tensor:
            x[:, -1, self.span(head)] = value
            return x

        with hooked((block(self.handle.model, self.handle.shape, head[0], self.inside), self.before, patch)):
            return self.handle.model(**self.inputs).logits[:, -1]


@torch.no_grad()
def taken(name: str, texts: Sequence[str], inside: str, before: bool, **options: Any) -> list[torch.Tensor]:
    """What goes into (`before`) or comes out of a module of each layer at the last token, [row, …] by layer."""
    handle, kept = Handle(name), []
    modules = [block(handle.model, handle.shape, layer, inside) for layer in range(handle.shape.layers)]
    with hooked(*((module, before, lambda x: kept.append(x[:, -1].clone())) for module in modules)):
        handle.model(**inputs(handle, given.ids(name, texts)), **options)
    return kept


TASKS = {"aie": Effects, "queries": Queries}
