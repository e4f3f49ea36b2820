"""A generation as the user sees it: a run followed by decoding steps, each of which can be read and edited.

g = s.generate("Once upon a time", max_new_tokens=20)
g.step(0).resid_post[3][:, -1] += v      the prompt's own pass, which chooses new token 0
g.step(4).logits[:, 17] = -inf           the pass that chooses new token 4
g.each.resid_post[3] += v                every pass: the last position of each; reads as [step, batch, …]
g.tokens, g.lengths, g.text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ProgramError, SiteError
from weft.ir.card import Card
from weft.ir.nodes import EACH, Read, Ref, Site
from weft.trace.location import where
from weft.trace.places import Places
from weft.trace.run import Run, contiguous
from weft.trace.storage import Storage
from weft.trace.tensor import Traced, resolve

if TYPE_CHECKING:
    from weft.trace.session import Session


class Step(Run):
    """One step of a generation: a run whose positions are those that this step computes."""

    def __init__(self, generation: Generation, step: int) -> None:
        prompt = generation.prompt
        whole = step == 0
        ids = prompt.inputs if whole else {"tokens": prompt.inputs["tokens"][:, :1]}
        self.session = prompt.session
        self.index = prompt.index
        self.card = prompt.card
        self.kind = prompt.kind
        self.inputs = ids
        self.batch = prompt.batch
        self.pos = prompt.pos if whole else 1
        self.tokens = prompt.tokens if whole else None
        self.start = prompt.start if whole else torch.zeros(prompt.batch, dtype=torch.long)
        self.mask = prompt.mask if whole else torch.ones(prompt.batch, 1, dtype=torch.bool)
        self.rows = prompt.rows
        self.label = f"{prompt.label}, {'every step' if step == EACH else f'step {step}'}"
        self._layered = prompt._layered
        self._resolved = prompt._resolved
        self._sites = {}
        self._step = step
        self._prompt = prompt

    def _lengths(self) -> tuple[int, int, int]:
        assert self._step is not None
        return self.batch, self.pos, self._prompt.pos + max(self._step, 0)

    def _storage(self, site: Site) -> Storage:
        if self._step == EACH and any(dim.key for dim in self.card.by_site[site][1].dims):
            raise SiteError(
                f"{site} grows from step to step, so it cannot be read as one tensor over all of them; "
                "read it at g.step(i)",
                where=where(),
            )
        return super()._storage(site)

    def written_otherwise(self, site: Site, step: int) -> bool:
        """Whether the site is written at single steps, and `step` is every one; or the other way round."""
        same = ((at, each) for (name, at), each in self._prompt._sites.items() if name == site and at is not None)
        return any(each.version and (at == EACH) != (step == EACH) for at, each in same)

    def fork(self) -> Run:
        raise ProgramError("a step cannot be forked; fork the generation", where=where())


class Generation(Places):
    """A prompt's pass and the steps after it."""

    def __init__(self, session: Session, prompt: Run, options: dict[str, Any]) -> None:
        self.session = session
        self.prompt = prompt
        self.options = options
        self.batch, self.pos, self.start = prompt.batch, prompt.pos, prompt.start
        self.rows, self.mask = prompt.rows, prompt.mask
        count = int(options["max_new_tokens"])
        self.tokens: Traced = self._output("tokens", (self.batch, count))
        self.lengths = self._output("lengths", (self.batch,))
        self.session.save_as(self.tokens, f"_tokens.{prompt.index}")
        self.session.save_as(self.lengths, f"_lengths.{prompt.index}")

    def __repr__(self) -> str:
        return f"generation of {self.prompt}"

    def step(self, number: int) -> Step:
        """The pass that chooses new token `number`; `step(0)` is the prompt's own."""
        count = int(self.options["max_new_tokens"])
        if not 0 <= number < count:
            raise ProgramError(f"step({number}): this generation has steps 0 to {count - 1}", where=where())
        return Step(self, number)

    @property
    def each(self) -> Step:
        """Every step at once: the position that chooses the new token, in every pass; saved as [step, batch, 1, …]."""
        return Step(self, EACH)

    @property
    def text(self) -> list[str]:
        """The new text of each row, after the block."""
        tokenizer = self.session.model.tokens
        if tokenizer is None:
            raise ProgramError("this model has no tokenizer; use g.tokens", where=where())
        made, lengths = resolve(self.tokens).tolist(), resolve(self.lengths).tolist()
        return [tokenizer.decode(row[:n]) for row, n in zip(made, lengths, strict=True)]

    @property
    def prompt_tokens(self) -> torch.Tensor | None:
        """The prompts' token ids [batch, pos]; `tokens` are the new ones."""
        return self.prompt.tokens

    def fork(self) -> Generation:
        """The same prompts and options again, to be edited."""
        return self.session.again_generation(self)

    def _output(self, name: str, size: tuple[int, ...]) -> Traced:
        graph = self.session.graph
        storage = Storage(graph, self.session, graph.add(Read(self.prompt.index, Site(name), None)))
        storage.frozen = f"the {name} of a generation cannot be written; write the logits of its steps"
        return Traced(storage, (torch.int64, size, contiguous(size)))


__all__ = ["Card", "Generation", "Ref", "Step"]
