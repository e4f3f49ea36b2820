"""One generation among those that are decoded together: its rows, what it reads at a step, and what it has made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from weft.execute.constants import to_tensor
from weft.execute.lazy import Layout
from weft.execute.reference import Interpreter, Shared
from weft.execute.sampling import ended, eos_of, pad_of
from weft.ir.nodes import EACH, Read, Run, Site, Write
from weft.plan.forks import first_positions
from weft.plan.generations import OUTPUTS

Reads = list[tuple[int, Read]]


class Rollout:
    """The state of one generation. `places` are its prompts' tokens in the packed ones, [batch, pos], -1 in padding;
    `slots` [batch] say at which place each row decodes, -1 once it has ended."""

    def __init__(self, owner: Interpreter, run: int) -> None:
        node = owner.nodes[run]
        assert isinstance(node, Run)
        inputs = {name: to_tensor(owner.nodes[ref.node].data, torch.device("cpu")) for name, ref in node.inputs}  # type: ignore[union-attr]
        self.owner, self.run = owner, run
        self.shared = Shared(owner, run, node, inputs)
        self.options, self.steps = self.shared.options, self.shared.steps
        tokens = inputs["tokens"]
        self.batch, self.pos = int(tokens.shape[0]), int(tokens.shape[1])
        self.starts = inputs["start"].tolist() if "start" in inputs else [0] * self.batch
        self.rows = [tuple(row[at:]) for row, at in zip(tokens.tolist(), self.starts, strict=True)]
        self.first = self._first()
        self.places = torch.full((self.batch, self.pos), -1)
        self.slots = torch.full((self.batch,), -1)
        self.made: list[list[int]] = [[] for _ in self.rows]
        self.over = [False] * self.batch
        self.told: set[tuple[int, int | None]] = set()
        config = self.shared.card.config
        self.pad = pad_of(config)
        self.stops = (*self.options["stop"], *((token,) for token in eos_of(config)))
        self.decode: Callable[[list[int]], str] | None = owner.loaded.tokens.decode if owner.loaded.tokens else None

    def _first(self) -> list[int]:
        """The first position of each row whose own numbers differ from those of the same prompt without edits."""
        uses, first = self.owner.uses, [len(row) for row in self.rows]
        for index in uses.writes[self.run]:
            write, read = self.owner.nodes[index], self.owner.nodes[uses.root[index]]
            assert isinstance(write, Write) and isinstance(read, Read)
            if index not in uses.needed or read.step not in (0, EACH) or read.site.name == "logits":
                continue
            if read.step == EACH:
                first = [min(at, len(row) - 1) for at, row in zip(first, self.rows, strict=True)]
            else:
                found = first_positions(self.owner.nodes, write, self.starts, self.pos)
                first = [min(a, b) for a, b in zip(first, found, strict=True)]
        return first

    def put(self, row: int, places: list[int], slot: int) -> None:
        """Where a row's prompt is in the packed tokens, and where it decodes."""
        self.places[row, self.starts[row] :] = torch.tensor(places)
        self.slots[row] = slot

    def reads(self, step: int) -> dict[Site, Reads]:
        """What is read (and perhaps written) at a step, by site, in the order written."""
        found: dict[Site, Reads] = {}
        for index, read in self.shared.reads:
            if read.site.name not in OUTPUTS and read.step in (step, EACH):
                found.setdefault(read.site, []).append((index, read))
        return found

    def layout(self, own: torch.Tensor) -> Layout:
        """A layout of its own for each reading: values that share one count as versions of one site."""
        return Layout(torch.full_like(own, -1), own)

    def active(self) -> list[int]:
        """The rows that have not ended."""
        return [row for row, over in enumerate(self.over) if not over]

    def take(self, row: int, token: int) -> None:
        """A row's new token."""
        self.made[row].append(token)
        self.over[row] = ended(self.made[row], self.stops, self.decode)

    def asked(self, step: int) -> int:
        """The tokens of a step when rows of one length go on until all of them have ended."""
        groups = [group for group in self.shared.groups if not all(self.over[row] for row in group.rows)]
        return sum(len(group.rows) * (group.length if step == 0 else 1) for group in groups)

    # -- telling the dataflow ---

    def deliver(self, index: int, read: Read, step: int, value: Any) -> None:
        """A site's value at a step has become known."""
        key = (index, step if read.step == EACH else None)
        self.told.add(key)
        self.owner.flow.deliver(key, (value,))

    def finish(self) -> None:
        """All rows have ended: what was made, and steps that no row reached, which read as 0."""
        self.slots.fill_(-1)
        tokens = torch.full((self.batch, self.steps), self.pad)
        for row, made in enumerate(self.made):
            tokens[row, : len(made)] = torch.tensor(made)
        outputs = {"tokens": tokens, "lengths": torch.tensor([len(made) for made in self.made])}
        for index, read in self.shared.reads:
            if read.site.name in OUTPUTS:
                self.owner.flow.deliver((index, None), (outputs[read.site.name],))
            else:
                self._unreached(index, read)
        self.shared.finished()

    def _unreached(self, index: int, read: Read) -> None:
        for step in range(self.steps) if read.step == EACH else [read.step or 0]:
            if (index, step if read.step == EACH else None) not in self.told:
                dtype = getattr(torch, self.shared.card.by_site[read.site][1].dtype)
                self.deliver(index, read, step, torch.zeros(self.shared.whole(read, step), dtype=dtype))


__all__ = ["Reads", "Rollout"]
