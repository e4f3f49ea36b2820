"""The oracle: what an experiment means.

Every run is a whole forward pass of the model as transformers runs it, with a hook at each site that is read or written.
Rows are grouped by their true length and never padded, so no number depends on a neighbour's length. A pass that needs a
value which is not there yet (of another run, or of the rows of another length) is given up and made again later; what it
captured stays, and is what the model goes on with, so a value is taken from the model exactly once.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from weft.errors import ExecutionError, JobCancelledError
from weft.execute.arithmetic import Known
from weft.execute.constants import to_tensor
from weft.execute.dataflow import Dataflow
from weft.execute.needed import Uses
from weft.execute.presentation import Group, groups, onto, take
from weft.execute.sampling import choose
from weft.ir.nodes import EACH, Experiment, Grad, Read, Ref, Run, Save, Site, Slot, Write
from weft.ir.outcome import Edits, Outcome
from weft.models.caches import new_cache
from weft.models.dtypes import type_of
from weft.models.hooks import tapped
from weft.models.suffix import entered

Progress = Callable[[float, str], None]


class NotYet(Exception):
    """A pass has come to a value that is not there yet."""


class Enough(Exception):
    """A lean pass has come to the last site that anybody reads."""


def run(
    loaded: Any,
    experiment: Experiment,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    known: Known | None = None,
) -> Outcome:
    """Run an experiment on a loaded model and give its saved values (detached tensors on the model's device).

    `known` is told of each as soon as it is there (of one of every step, never).
    """
    uses = Uses(experiment)
    with frozen(loaded.module) if uses.with_grad else nullcontext():
        interpreter = Interpreter(loaded, experiment, uses, progress, cancelled)
        interpreter.flow.known = known
        return interpreter.run(uses.runs())


@contextmanager
def frozen(module: torch.nn.Module) -> Iterator[None]:
    """The model's own parameters take no gradients meanwhile."""
    wanting = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


@contextmanager
def _plain_attention() -> Iterator[None]:
    with sdpa_kernel(SDPBackend.MATH):
        yield


class Interpreter:
    """One experiment on one model."""

    def __init__(
        self, loaded: Any, experiment: Experiment, uses: Uses, progress: Progress | None, cancelled: Any
    ) -> None:
        self.loaded = loaded
        self.nodes = experiment.nodes
        self.uses = uses
        self.flow = Dataflow(loaded, experiment, self.uses, lambda data: to_tensor(data, loaded.device))
        self.progress = progress or (lambda done, text: None)
        self.cancelled = cancelled or (lambda: False)
        self.captured = self.finished = 0
        self.lean = False  # no more of the model than is read: not the oracle's way
        self.entries: dict[int, tuple[int, torch.Tensor]] = {}  # runs that begin at a layer, and what enters it
        self.applied: set[int] = set()
        self.without_effect: set[int] = set()
        self.work = {"runs": 0, "passes": 0, "rows": 0, "layer_tokens_asked": 0, "layer_tokens_done": 0}

    def attention(self) -> AbstractContextManager[None]:
        """PyTorch's fused attention has no second derivative: where a gradient goes through a gradient, the plain one."""
        twice = any(isinstance(self.nodes[index], Grad) for index in self.uses.with_grad)
        return _plain_attention() if twice else nullcontext()

    def run(self, runs: list[int]) -> Outcome:
        """Run those runs, and give what was saved."""
        started = time.perf_counter()
        self.flow.start()
        self.advance(runs)
        return self.outcome("reference", time.perf_counter() - started)

    def advance(self, runs: list[int]) -> None:
        """Make the passes of these runs, each as soon as what it needs is there."""
        passes = [each for index in runs for each in self._passes(index)]
        self.work["runs"] += len(runs)
        waiting = passes
        while waiting:
            before, left = self.captured, []
            for each in waiting:
                if not each.advance():
                    left.append(each)
                    continue
                self.finished += 1
                self.progress(self.finished / len(passes), f"pass {self.finished} of {len(passes)}")
            if len(left) == len(waiting) and self.captured == before:
                raise ExecutionError("these runs wait for one another; the experiment has no order in which it can run")
            waiting = left

    def outcome(self, plan: str, seconds: float, notes: tuple[str, ...] = ()) -> Outcome:
        """What was saved, and what it took."""
        return Outcome(self._values(), self._edits(), self.work, seconds, plan, notes)

    def _passes(self, index: int) -> list[Pass]:
        node = self.nodes[index]
        assert isinstance(node, Run)
        inputs = {name: self._input(ref) for name, ref in node.inputs}
        shared = Shared(self, index, node, inputs)
        shared.passes = [Pass(shared, group) for group in shared.groups]
        return shared.passes

    def _input(self, ref: Ref) -> torch.Tensor:
        """What a run is given: a constant, or in a loop the rows of this step."""
        node: Any = self.nodes[ref.node]
        return (
            self.flow.given[ref.node][0].cpu() if isinstance(node, Slot) else to_tensor(node.data, torch.device("cpu"))
        )

    def _values(self) -> dict[str, torch.Tensor]:
        names = [node.name for node in self.nodes if isinstance(node, Save)]
        missing = [name for name in names if name not in self.flow.saved]
        if missing:
            raise ExecutionError(f"the value saved as {missing[0]!r} was not reached; this is a fault in weft")
        saved = self.flow.saved
        return {n: torch.stack([v[i] for i in sorted(v)]) if isinstance(v := saved[n], dict) else v for n in names}

    def _edits(self) -> Edits:
        asked = sum(isinstance(node, Write) for node in self.nodes)
        unread = sum(isinstance(node, Write) and index not in self.uses.needed for index, node in enumerate(self.nodes))
        edits = Edits(asked, len(self.applied), unread + len(self.without_effect) + self._after_the_end())
        if edits.asked != edits.applied + edits.without_effect:
            raise ExecutionError(f"{edits.asked} edits were asked for, but {edits.applied} made: a fault in weft")
        return edits

    def _after_the_end(self) -> int:
        """Edits at steps that no row reached: they count as without effect."""
        return sum(
            isinstance(node, Write)
            and index in self.uses.needed
            and index not in self.applied
            and self._never_ran(index)
            for index, node in enumerate(self.nodes)
        )

    def _never_ran(self, write: int) -> bool:
        read = self.nodes[self.uses.root[write]]
        return isinstance(read, Read) and read.step is not None and read.step > 0


class Shared:
    """What the passes of one run have in common."""

    def __init__(self, owner: Interpreter, index: int, node: Run, inputs: dict[str, torch.Tensor]) -> None:
        self.owner, self.index, self.node, self.inputs = owner, index, node, inputs
        self.card = owner.loaded.card_for({name: type_of(value) for name, value in inputs.items()}, inputs)
        self.generates = node.kind == "generate"
        given = {name: value for name, value in node.options if value is not None}
        self.options: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "seed": 0, "stop": (), **given}
        self.steps: int = self.options["max_new_tokens"] if self.generates else 1
        self.groups = groups(inputs)
        self.passes: list[Pass] = []
        self.parts: dict[tuple[int, int | None, int], torch.Tensor] = {}
        self.told: set[tuple[int, int | None]] = set()
        self.over: dict[tuple[int, int | None, int], torch.Tensor] = {}  # which rows had ended at that step
        reads = [i for i in owner.uses.reads[index] if i in owner.uses.needed]
        self.reads = [(i, read) for i in reads if isinstance(read := owner.nodes[i], Read)]

    def whole(self, read: Read, step: int) -> tuple[int, ...]:
        """The shape of the site in the user's presentation (left-padded to the longest row)."""
        first = next(iter(self.inputs.values()))
        batch, pos = int(first.shape[0]) if first.dim() else 1, int(first.shape[1]) if first.dim() > 1 else 1
        here = 1 if step > 0 or read.step == EACH else pos
        return self.card.by_site[read.site][1].type(batch, here, pos + step).shape

    def finished(self) -> None:
        """All passes of this run have ended: what was held for them is let go."""
        flow = self.owner.flow
        for index in [*self.owner.uses.writes[self.index], *self.owner.uses.reads[self.index]]:
            for key in flow.keys(index):
                flow.release(key)
        self.parts.clear()
        self.over.clear()


class Pass:
    """The forward pass (or the steps of a generation) of those rows of a run that have the same length."""

    def __init__(self, shared: Shared, group: Group) -> None:
        self.shared, self.group = shared, group
        self.owner = shared.owner
        self.number = shared.groups.index(group)
        self.step, self.done = 0, False
        self.cache: Any = None
        self.tokens: list[torch.Tensor] = []
        self.ended = torch.zeros(len(group.rows), dtype=torch.bool)
        self.lengths = torch.zeros(len(group.rows), dtype=torch.long)

    def advance(self) -> bool:
        """Go on as far as possible; True when there is nothing left to do."""
        while not self.done:
            before = _length(self.cache)
            try:
                self._forward()
            except NotYet:
                self.cache = _back(self.cache, before)
                return False
            self.step += 1
            if self.step == self.shared.steps or (self.shared.generates and bool(self.ended.all())):
                self._finish()
        return True

    def _forward(self) -> None:
        if self.owner.cancelled():
            raise JobCancelledError("the job was cancelled while it ran")
        graph = any(index in self.owner.uses.with_grad for index, _ in self.shared.reads)
        taps = self._taps(graph)
        inputs = self._inputs()
        lean = self.owner.lean and not any(site.name == "logits" or site.path for site in taps)
        if lean and taps and not self.shared.generates:
            self._stop_at_last(taps)
        try:
            with (
                torch.set_grad_enabled(graph),
                self.owner.attention(),
                self._entry(),
                tapped(self.owner.loaded, taps),
            ):
                logits = self.owner.loaded.forward(inputs, cache=self.cache, last_only=lean)
        except Enough:
            logits = None
        self._count(next(iter(inputs.values())))
        if self.shared.generates:
            assert logits is not None
            self._choose(logits)

    def _entry(self) -> AbstractContextManager[None]:
        """Where what enters a layer is known from an earlier step of a loop, the layers below are left out."""
        found = self.owner.entries.get(self.shared.index)
        if found is None:
            return nullcontext()
        layer, stream = found
        self.owner.work["layer_tokens_done"] -= layer * len(self.group.rows) * self.group.length
        rows = self.group.rows_of(stream, ("batch", "pos", "d_model"), tuple(stream.shape))
        return entered(self.owner.loaded, layer, rows)

    def _stop_at_last(self, taps: dict[Site, Callable[[torch.Tensor], torch.Tensor | None]]) -> None:
        """Have the pass end with the last site that is tapped."""
        last = max(taps, key=lambda site: self.shared.card.by_site[site][0])
        tap = taps[last]

        def stop(value: torch.Tensor) -> None:
            tap(value)
            raise Enough

        taps[last] = stop

    def _inputs(self) -> dict[str, torch.Tensor]:
        if not self.shared.generates:
            return self.group.inputs
        if self.cache is None:
            # Told the configuration, a cache drops keys that are beyond a window, and patterns would be cut short.
            loaded = self.owner.loaded
            self.cache = new_cache(getattr(loaded.module, "config", None), loaded.family is not None)
        return self.group.inputs if self.step == 0 else {"tokens": self.tokens[-1][:, None]}

    def _taps(self, graph: bool) -> dict[Site, Callable[[torch.Tensor], torch.Tensor | None]]:
        found: dict[Site, list[tuple[int, Read]]] = {}
        for index, read in self.shared.reads:
            if read.site.name not in ("tokens", "lengths") and read.step in (None, self.step, EACH):
                found.setdefault(read.site, []).append((index, read))
        return {site: self._tap(chain, graph) for site, chain in found.items()}

    def _tap(self, reads: list[tuple[int, Read]], graph: bool) -> Callable[[torch.Tensor], torch.Tensor | None]:
        def tap(value: torch.Tensor) -> torch.Tensor | None:
            changed = None
            for index, read in reads:
                new = self._at_site(index, read, value, graph)
                value = value if new is None else new
                changed = changed if new is None else new
            return changed

        return tap

    def _at_site(self, index: int, read: Read, value: torch.Tensor, graph: bool) -> torch.Tensor | None:
        """Capture the value, let what depends on it be computed, and give what the model goes on with."""
        shared, flow = self.shared, self.owner.flow
        axes = shared.card.by_site[read.site][1].axes
        step = self.step if read.step == EACH else None
        place = (index, step, self.number)
        part = take(value, axes) if read.step == EACH else value
        if place not in shared.parts:
            shared.parts[place] = part.clone(memory_format=torch.contiguous_format)
            shared.over[place] = self.ended
            self.owner.captured += 1
            self._deliver(index, read, self.step)
        final = self.owner.uses.final[index]
        targeted = Ref(index) in self.owner.uses.targets
        if final == index and not targeted:
            return _with(value, shared.parts[place], axes, read) if graph else None
        key = (final, step if final in flow.stepped else None)
        if not flow.has(key):
            raise NotYet
        self.owner.applied.update(self._chain(final))
        new = self.group.rows_of(flow.values[key][0], axes, shared.whole(read, self.step))
        return _with(value, new, axes, read)

    def _deliver(self, index: int, read: Read, step: int) -> None:
        """Tell the dataflow a site's value at a step, once every pass of the run has been there or ended before."""
        shared, key = self.shared, (index, step if read.step == EACH else None)
        places = [(*key, number) for number in range(len(shared.groups))]
        if key in shared.told or not all(p in shared.parts or self._over(p[2], step) for p in places):
            return
        pieces = [
            (each.group, _shown(shared.parts[place], shared.over[place]))
            for each, place in zip(shared.passes, places, strict=True)
            if place in shared.parts
        ]
        shared.told.add(key)
        value = onto(shared.whole(read, step), shared.card.by_site[read.site][1].axes, pieces, read.site)
        self.owner.flow.deliver(key, (self.owner.flow.target(Ref(index), value),))

    def _over(self, number: int, step: int) -> bool:
        each = self.shared.passes[number]
        return each.done and each.step <= step

    def _chain(self, final: int) -> list[int]:
        found = []
        node = self.owner.nodes[final]
        while isinstance(node, Write):
            found.append(final)
            final = node.prev.node
            node = self.owner.nodes[final]
        return found

    # -- generation ---

    def _choose(self, logits: torch.Tensor) -> None:
        options = self.shared.options
        rows = self.group.rows
        chosen = choose(
            logits[:, -1].detach(), rows, self.step, options["temperature"], options["top_p"], options["seed"]
        )
        chosen = torch.where(self.ended, torch.full_like(chosen.cpu(), self._pad()), chosen.cpu())
        self.tokens.append(chosen.to(logits.device))
        self.lengths += (~self.ended).long()
        self.ended = self.ended | self._ends()

    def _ends(self) -> torch.Tensor:
        stops = [*self.shared.options["stop"], *((token,) for token in self._eos())]
        rows = torch.stack(self.tokens, 1).tolist()
        return torch.tensor([any(self._has(row, stop) for stop in stops) for row in rows], dtype=torch.bool)

    def _has(self, row: list[int], stop: str | tuple[int, ...]) -> bool:
        """Whether new tokens end with these, or their text holds that one (however it falls into tokens)."""
        if isinstance(stop, str):
            return stop in self.owner.loaded.tokens.decode(row)
        return tuple(row[-len(stop) :]) == tuple(stop)

    def _eos(self) -> list[int]:
        found = self.shared.card.config.get("eos_token_id")
        return [] if found is None else [found] if isinstance(found, int) else list(found)  # type: ignore[call-overload]

    def _pad(self) -> int:
        pad = self.shared.card.config.get("pad_token_id")
        return pad if isinstance(pad, int) and pad >= 0 else (self._eos() or [0])[0]

    # -- the end ---

    def _finish(self) -> None:
        self.done = True
        shared = self.shared
        reads = dict(shared.reads)
        for index, step, _ in list(shared.parts):  # what waited for this pass, which has ended before it came there
            self._deliver(index, reads[index], (reads[index].step or 0) if step is None else step)
        if not all(each.done for each in shared.passes):
            return
        if shared.generates:
            self._deliver_generation()
        shared.finished()

    def _deliver_generation(self) -> None:
        shared, flow = self.shared, self.owner.flow
        tokens = torch.full((sum(len(g.rows) for g in shared.groups), shared.steps), self._pad(), dtype=torch.long)
        lengths = torch.zeros(tokens.shape[0], dtype=torch.long)
        for each in shared.passes:
            made = torch.stack([token.cpu() for token in each.tokens], 1)
            tokens[each.group.rows, : made.shape[1]] = made
            lengths[each.group.rows] = each.lengths
        for index, read in shared.reads:
            if read.site.name in ("tokens", "lengths"):
                flow.deliver((index, None), (tokens if read.site.name == "tokens" else lengths,))
            else:
                self._deliver_unreached(index, read)

    def _deliver_unreached(self, index: int, read: Read) -> None:
        """Steps after every row's end were not asked for: they read as 0."""
        steps = range(self.shared.steps) if read.step == EACH else [read.step or 0]
        for step in steps:
            key = (index, step if read.step == EACH else None)
            reached = any((index, key[1], n) in self.shared.parts for n in range(len(self.shared.groups)))
            if not reached:
                spec = self.shared.card.by_site[read.site][1]
                dtype = getattr(torch, spec.dtype)
                self.owner.flow.deliver(key, (torch.zeros(self.shared.whole(read, step), dtype=dtype),))

    def _count(self, first: torch.Tensor) -> None:
        work = self.owner.work
        layers = self.shared.card.sizes.get("n_layers", 1)
        tokens = first.shape[0] * (first.shape[1] if first.dim() > 1 else 1)
        work["passes"] += 1
        work["rows"] += first.shape[0]
        work["layer_tokens_asked"] += layers * tokens
        work["layer_tokens_done"] += layers * tokens


def _shown(part: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
    """Rows that had ended before that step read as 0."""
    if not bool(over.any()):
        return part
    return part.masked_fill(over.to(part.device).reshape(-1, *[1] * (part.dim() - 1)), 0)


def _length(cache: Any) -> Any:
    """What it takes to undo a step that has to be made again: the cache's length, or a copy where it cannot be cut."""
    if cache is None:
        return 0
    plain = all(type(layer).__name__ == "DynamicLayer" for layer in cache.layers)
    return cache.get_seq_length() if plain else copy.deepcopy(cache)


def _back(cache: Any, before: Any) -> Any:
    """The cache as it was before the step that was given up."""
    if not isinstance(before, int):
        return before
    if before == 0:
        return None
    for layer in cache.layers:  # those after the place where the step was given up are as they were
        layer.crop(min(0, before - layer.get_seq_length()))
    return cache


def _with(value: torch.Tensor, new: torch.Tensor, axes: tuple[str, ...], read: Read) -> torch.Tensor:
    """`value` with `new` in it: the whole of it, or at each step of a generation its last position."""
    if read.step != EACH or new.shape == value.shape:
        return new
    changed = value.clone()
    take(changed, axes).copy_(new)
    return changed
