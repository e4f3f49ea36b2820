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
PLAIN = frozenset((Const, Op, Write, Update, Param, Apply, Save))
LOGITS = Site("logits")
ALONE = "a single run of rows alike in length has nothing to share"


def fits(loaded: Any, experiment: Experiment) -> bool:
    """Whether an experiment is one plain run, small, of rows that are not padded, on a decoder."""
    nodes = experiment.nodes
    if len(nodes) > MOST_NODES or loaded.card.kind != "decoder":
        return False
    run: Run | None = None
    for node in nodes:
        kind = type(node)
        if kind in PLAIN:
            continue
        if isinstance(node, Read):
            if node.step is not None or node.site.path or node.site.name == "lengths":
                return False
        elif not isinstance(node, Run) or run is not None:
            return False
        else:
            run = node
    return run is not None and _plain(nodes, run)


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
        self.last = -1  # the read at the last site that is needed
        self.final: dict[int, int] = {}  # of each site's read its last needed write, or itself
        self.writes: list[tuple[int, int, int]] = []  # place in the model, node, and the read it belongs to
        root: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            if isinstance(node, Read):
                root[index] = index
            elif isinstance(node, Write):
                root[index] = read = root[node.prev.node]
                self.writes.append((self._place(read), index, read))

    def _place(self, read: int) -> int:
        node = self.nodes[read]
        assert isinstance(node, Read)
        return self.card.by_site[node.site][0]

    def run(self, started: float) -> Outcome:
        needed = self.needed = self._needed()
        for _, index, read in self.writes:
            if index in needed:
                self.final[read] = index
        taps: dict[Site, Any] = {}
        for index in sorted(needed):
            node = self.nodes[index]
            if isinstance(node, Read):
                taps[node.site] = self._tap(index)
        tokens = self._forward(taps)
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
                place = self._place(index)
                stack.extend(write for at, write, _ in self.writes if at < place)
            elif type(node) is not Const:
                stack.extend(ref.node for ref in operands(node))
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

    def _forward(self, taps: dict[Site, Any]) -> torch.Tensor:
        run = next(node for node in self.nodes if isinstance(node, Run))
        tokens: torch.Tensor = self.held(run.inputs[0][1], None)
        if not taps:
            return tokens
        last = max(taps, key=lambda site: self.card.by_site[site][0])
        if last.name != "logits":
            taps[last] = _ending(taps[last])
        self.last = next(i for i in self.needed if isinstance(n := self.nodes[i], Read) and n.site == last)
        try:
            with tapped(self.loaded, taps, once=True), fused(activations_of(self.loaded.module)):
                # Told that no token is padding, transformers does not look for packed rows by itself.
                given = {"tokens": tokens, "attention_mask": torch.ones_like(tokens)}
                self.loaded.forward(given, last_only=self._last_alone(taps))
        except Enough:
            pass
        return tokens

    def _last_alone(self, taps: dict[Site, Any]) -> bool:
        """Whether of the logits nothing but `[:, -1]` is asked for: that is the same of the last position's alone."""
        if LOGITS not in taps:
            return True
        return not any(
            ref.node in self.needed and isinstance(read := self.nodes[ref.node], Read) and read.site == LOGITS
            for index, node in enumerate(self.nodes)
            if index in self.needed
            and not (type(node) is Op and node.name == "select.int" and node.args[1:] == (1, -1))
            for ref in operands(node)
        )

    def held(self, ref: Ref, step: int | None) -> Any:
        if (ref.node, None) not in self.values:
            self._at(ref.node)
        return self.values[ref.node, None][ref.out]

    def _at(self, index: int) -> None:
        """Compute a node; an error points at the line that it comes from."""
        node = self.nodes[index]
        if isinstance(node, Read):
            raise ExecutionError(f"{node.site} is asked for before the model has come to it; this is a fault in weft")
        try:
            self.values[index, None] = self.value(index, node, None)
        except WeftError as error:
            error.details.setdefault("node", index)
            raise error.at(self.experiment.where(index)) from None
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            found = ExecutionError(f"{type(error).__name__}: {error}")
            found.details["node"] = index
            raise found.at(self.experiment.where(index)) from error

    def _outcome(self, tokens: torch.Tensor, started: float) -> Outcome:
        done = self.card.sizes["n_layers"] * tokens.numel()
        rows = tokens.shape[0]
        work = {"runs": 1, "passes": 1, "rows": rows, "layer_tokens_asked": done, "layer_tokens_done": done}
        edits = Edits(len(self.writes), len(self.applied), len(self.writes) - len(self.applied))
        lost = {index for _, index, _ in self.writes if index in self.needed} - self.applied
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
