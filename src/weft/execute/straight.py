"""A small experiment of one run whose rows are alike in length: one forward pass, and nothing planned or scheduled.

What a save or an edit needs is computed when it is asked for. That is all there is to do here, and it costs less than
deciding what to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from weft.errors import ExecutionError, JobCancelledError, WeftError
from weft.execute.arithmetic import Arithmetic
from weft.execute.constants import to_tensor
from weft.execute.fused import activations_of, fused
from weft.execute.lazy import full
from weft.execute.reference import Enough
from weft.ir.card import Card
from weft.ir.nodes import Apply, Const, Experiment, Op, Param, Read, Ref, Run, Save, Site, Update, Write, operands
from weft.ir.outcome import Edits, Outcome
from weft.models.hooks import tapped

MOST_NODES, MOST_TOKENS = 64, 512
"""Larger experiments are worth some planning: values are freed at their last use there."""
PLAIN = frozenset((Const, Op, Write, Update, Param, Apply, Save, Read, Run))
LOGITS = Site("logits")
ALONE = "a single run of rows alike in length has nothing to share"


def fits(loaded: Any, experiment: Experiment) -> bool:
    """Whether an experiment is one plain run, small, of rows that are not padded, on a decoder."""
    nodes = experiment.nodes
    if len(nodes) > MOST_NODES or loaded.card.kind != "decoder" or not PLAIN.issuperset(map(type, nodes)):
        return False
    runs = [node for node in nodes if type(node) is Run]
    reads = [node for node in nodes if type(node) is Read]
    if any(read.step is not None or read.site.path or read.site.name == "lengths" for read in reads):
        return False
    return len(runs) == 1 and _plain(nodes, runs[0])


def _plain(nodes: tuple[Any, ...], run: Run) -> bool:
    if run.kind != "tokens" or len(run.inputs) != 1 or run.options:
        return False
    constant = nodes[run.inputs[0][1].node]
    shape = constant.data.type.shape if isinstance(constant, Const) else ()
    return len(shape) == 2 and 0 < shape[0] * shape[1] <= MOST_TOKENS


def run(loaded: Any, experiment: Experiment, cancelled: Callable[[], bool] | None) -> Outcome:
    """Run an experiment that `fits`."""
    started = time.perf_counter()
    if cancelled is not None and cancelled():
        raise JobCancelledError("the job was cancelled while it ran")
    with torch.no_grad():
        return Straight(loaded, experiment).run(started)


class Straight(Arithmetic):
    """One run, and values made on demand."""

    def __init__(self, loaded: Any, experiment: Experiment) -> None:
        super().__init__(loaded, experiment, lambda data: to_tensor(data, loaded.device))
        self.card: Card = loaded.card
        self.applied: set[int] = set()
        self.needed: set[int] = set()
        self.last = -1  # the needed read at the last site
        self.final: dict[int, int] = {}  # of a site's read its last needed write
        self.place: dict[int, int] = {}  # of each read and write, in the model
        self.root: dict[int, int] = {}  # of each write, the read it belongs to
        by_site = self.card.by_site
        for index, node in enumerate(self.nodes):
            if isinstance(node, Read):
                self.place[index] = by_site[node.site][0]
            elif isinstance(node, Write):
                before = node.prev.node
                self.root[index] = self.root.get(before, before)
                self.place[index] = self.place[before]

    def run(self, started: float) -> Outcome:
        needed = self.needed = self._needed()
        self.final = {read: index for index, read in self.root.items() if index in needed}
        tokens = self._forward([index for index in self.place if index in needed and index not in self.root])
        for index, node in enumerate(self.nodes):
            if isinstance(node, Save):
                self._at(index)
        return self._outcome(tokens, started)

    def _needed(self) -> set[int]:
        """What the saves depend on: a read on the edits at places before it."""
        seen: set[int] = set()
        stack = [index for index, node in enumerate(self.nodes) if type(node) is Save]
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            node = self.nodes[index]
            if type(node) is Read:
                stack += [write for write in self.root if self.place[write] < self.place[index]]
            else:
                stack += [ref.node for ref in operands(node)]
        return seen

    def _tap(self, index: int) -> Callable[[torch.Tensor], torch.Tensor | None]:
        def tap(value: torch.Tensor) -> torch.Tensor | None:
            final = self.final.get(index)
            if final is None and index == self.last and value.is_contiguous():  # nothing comes after to write into it
                self.values[index, None] = (value,)
                return None
            self.values[index, None] = (value.clone(memory_format=torch.contiguous_format),)
            if final is None:
                return None
            new = full(self.held(Ref(final), None))
            while isinstance(node := self.nodes[final], Write):
                self.applied.add(final)
                final = node.prev.node
            return new

        return tap

    def _forward(self, reads: list[int]) -> torch.Tensor:
        """The pass, as far as the last of these reads. Returns the tokens."""
        run = next(node for node in self.nodes if type(node) is Run)
        tokens: torch.Tensor = self.held(run.inputs[0][1], None)
        if not reads:
            return tokens
        last = self.last = max(reads, key=self.place.__getitem__)
        taps = {self._read(index).site: self._tap(index) for index in reads}
        at_end = taps.pop(LOGITS, None)  # what the whole model gives needs no hook
        if at_end is None:
            site = self._read(last).site
            taps[site] = _ending(taps[site])
        try:
            with tapped(self.loaded, taps, once=True), fused(activations_of(self.loaded.module)):
                # Told that no token is padding, transformers does not look for packed rows by itself.
                given = {"tokens": tokens, "attention_mask": torch.ones_like(tokens)}
                logits = self.loaded.forward(given, last_only=at_end is None or self._last_alone(last))
            if at_end is not None:
                at_end(logits)
        except Enough:
            pass
        return tokens

    def _read(self, index: int) -> Read:
        node = self.nodes[index]
        assert isinstance(node, Read)
        return node

    def _last_alone(self, logits: int) -> bool:
        """Whether of the logits nothing but `[:, -1]` is asked for: that is the same of the last position's alone."""
        for index in range(logits + 1, len(self.nodes)):
            if index in self.needed and logits in [ref.node for ref in operands(self.nodes[index])]:
                node = self.nodes[index]
                if not (isinstance(node, Op) and node.name == "select.int" and node.args[1:] == (1, -1)):
                    return False
        return True

    def held(self, ref: Ref, step: int | None) -> Any:
        found = self.values.get((ref.node, None))
        if found is None:
            found = self._at(ref.node)
        return found[ref.out]

    def _at(self, index: int) -> tuple[Any, ...]:
        """Compute a node; an error points at the line that it comes from."""
        node = self.nodes[index]
        if isinstance(node, Read):
            raise ExecutionError(f"{node.site} is asked for before the model has come to it; this is a fault in weft")
        try:
            found = self.values[index, None] = self.value(index, node, None)
            return found
        except WeftError as error:
            error.details.setdefault("node", index)
            raise error.at(self.experiment.where(index)) from None
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            wrong = ExecutionError(f"{type(error).__name__}: {error}")
            wrong.details["node"] = index
            raise wrong.at(self.experiment.where(index)) from error

    def _outcome(self, tokens: torch.Tensor, started: float) -> Outcome:
        done = self.card.sizes["n_layers"] * tokens.numel()
        rows = tokens.shape[0]
        work = {"runs": 1, "passes": 1, "rows": rows, "layer_tokens_asked": done, "layer_tokens_done": done}
        edits = Edits(len(self.root), len(self.applied), len(self.root) - len(self.applied))
        lost = {index for index in self.root if index in self.needed} - self.applied
        if lost:
            raise ExecutionError(f"the edit of node {min(lost)} was not made: a fault in weft")
        seconds = time.perf_counter() - started
        return Outcome(self.saved, edits, work, seconds, "reference", (f"as reference   1 run: {ALONE}",))


def _ending(tap: Any) -> Callable[[torch.Tensor], None]:
    """The pass ends with this tap."""

    def stop(value: torch.Tensor) -> None:
        tap(value)
        raise Enough

    return stop
