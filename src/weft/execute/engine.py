"""The engine: all runs of an experiment that it can do, in a few widening passes over the layers.

    base pass      every distinct row of tokens once, unedited; its keys and values are kept for all
    fork passes    one for each level of edited runs: the suffixes of all their rows, each entering at its first edited layer

A run's site has the base's numbers before its fork and its own after it. What the user's operations ask of a site is
delivered to the dataflow as a `SiteValue`, which is put together only where they look; what they write is put into the
packed tokens before the layer goes on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from weft.execute.attend import Store
from weft.execute.dataflow import Dataflow
from weft.execute.lazy import Layout, Patch, SiteValue
from weft.execute.needed import Uses
from weft.execute.packed import Packed
from weft.execute.readings import Reading, reading_of
from weft.execute.sweep import Sweep
from weft.execute.tree import Row, Segment, Tree, fork_from, tree, without
from weft.ir.nodes import Node, Read, Site, Write
from weft.plan.forks import Fork

MOST_TOKENS = 8192
"""Packed tokens of a fork pass: more are done in several passes."""
MOST_LOGITS = 512
"""Rows of whole logits made at once."""


@dataclass
class Work:
    """What was done, in layers times tokens, and what running each row by itself would have been."""

    passes: int = 0
    rows: int = 0
    asked: int = 0
    done: int = 0
    flops: int = 0


@dataclass(eq=False)
class Run:
    """One run in the engine: its fork, its reads by site, and where its tokens lie."""

    fork: Fork
    reads: dict[Site, int]
    shared: torch.Tensor  # batch pos, in the base's tokens
    own: torch.Tensor  # batch pos, in its pass's tokens; -1 outside the suffix
    segments: list[Segment] = field(default_factory=list)


class Engine:
    """The base and the forks of one experiment on one model."""

    def __init__(
        self, loaded: Any, nodes: tuple[Node, ...], uses: Uses, flow: Dataflow, forks: tuple[Fork, ...], cancelled: Any
    ) -> None:
        self.loaded, self.nodes, self.uses, self.flow, self.forks = loaded, nodes, uses, flow, forks
        self.cancelled = cancelled
        self.packed = Packed(loaded)
        self.layers = len(self.packed.layers)
        self.tree: Tree = tree([row for fork in forks for row in fork.tokens])
        self.alone = without(self.tree, _alone(forks, self.layers, self._enters))
        self.work = Work()
        self.applied: set[int] = set()
        self.without_effect: set[int] = set()
        self.saved: dict[Site, torch.Tensor] = {}
        self.stores: list[Store] = []
        self.root_tokens = 0
        self.runs = {fork.run: self._run(fork) for fork in forks}

    # -- before anything runs --------------------------------------------------------------------------------------------

    def _run(self, fork: Fork) -> Run:
        reads = {}
        for index in self.uses.reads[fork.run]:
            node = self.nodes[index]
            if isinstance(node, Read) and index in self.uses.needed:
                reads[node.site] = index
        empty = torch.full((len(fork.tokens), fork.pos), -1)
        self.work.asked += self.layers * sum(len(row) for row in fork.tokens)
        return Run(fork, reads, empty, empty.clone())

    def _enters(self, fork: Fork) -> bool:
        return fork.edited and fork.layer <= fork.last + 1 and fork.layer <= self.layers

    def base(self) -> None:
        """Run every distinct row once, and tell the dataflow what unedited runs read."""
        entries = {fork.layer for fork in self.forks if self._enters(fork)}
        keep = {site for run in self.runs.values() for site in run.reads if site.name not in ("final_norm", "logits")}
        keep |= {self.entry(layer) for layer in entries}
        last = max((fork.last for fork in self.forks), default=-1)
        wants_end = any(site.name in ("final_norm", "logits") for run in self.runs.values() for site in run.reads)
        if wants_end:
            keep.add(Site("resid_post", self.layers - 1))
        found: dict[Site, list[torch.Tensor]] = defaultdict(list)
        for segments in (self.tree.roots, self.tree.branches):
            if segments:
                self._base_pass(segments, last, keep, found)
        self.saved = {site: torch.cat(parts) if len(parts) > 1 else parts[0] for site, parts in found.items()}
        for run in self.runs.values():
            self._place(run)
        as_base = [run for run in self.runs.values() if not self._enters(run.fork)]
        self._tell(as_base, lambda site: True)
        for run in as_base:
            self.without_effect.update(w for w in self.uses.writes[run.fork.run] if w in self.uses.needed)
            self._let_go(run)

    def _base_pass(self, segments: list[Segment], last: int, keep: set[Site], found: dict[Site, list[Any]]) -> None:
        tokens = _packed_tokens(segments)
        for segment in segments:
            segment.last = last
        store = Store(len(segments), {}, {})
        sweep = Sweep(self, segments, tokens, self._parents(segments), keep_keys=store)
        sweep.run(last, {site: (lambda value, s=site: found[s].append(value[0])) for site in keep})
        if not self.stores:
            self.root_tokens = tokens
        self.stores.append(store)

    def entry(self, layer: int) -> Site:
        """The site whose value enters a layer."""
        return Site("embed") if layer == 0 else Site("resid_post", layer - 1)

    def _place(self, run: Run) -> None:
        """Where each position's token is in the base."""
        for row, (tokens, start) in enumerate(zip(run.fork.tokens, run.fork.starts, strict=True)):
            for segment in self._chain(tokens):
                offset = self.root_tokens if segment.parent is not None else 0
                end = run.fork.pos
                places = torch.arange(segment.length) + segment.at + offset
                until = min(end, start + segment.first + segment.length)
                at = start + segment.first
                run.shared[row, at:until] = places[: until - at]

    def _chain(self, row: Row) -> list[Segment]:
        """The segments of the base that hold a row's tokens."""
        if row not in self.alone:
            return self.tree.chain(row)
        parent = self.alone[row].parent
        return [] if parent is None else [parent]

    def _parents(self, segments: list[Segment]) -> Callable[[list[Segment]], list[tuple[Store, list[int], list[int]]]]:
        """For segments: each store they attend to, with the row and the number of keys of each."""

        def parts(members: list[Segment]) -> list[tuple[Store, list[int], list[int]]]:
            found = []
            for depth, store in enumerate(self.stores):
                rows, valid = [], []
                for segment in members:
                    row, count = _keys_at(segment, depth)
                    rows.append(row)
                    valid.append(count)
                if any(valid) and store.keys:  # no keys: no layer was run, and none will be
                    found.append((store, rows, valid))
            return found

        return parts

    # -- edited runs -----------------------------------------------------------------------------------------------------

    def level(self, number: int) -> None:
        """Run the edited runs of one level, as many at once as fit."""
        runs = [run for run in self.runs.values() if run.fork.level == number and self._enters(run.fork)]
        batch: list[Run] = []
        size = 0
        for run in runs:
            tokens = sum(len(row) - first for row, first in zip(run.fork.tokens, run.fork.first, strict=True))
            if batch and size + tokens > MOST_TOKENS:
                self._forks(batch)
                batch, size = [], 0
            batch.append(run)
            size += tokens
        if batch:
            self._forks(batch)

    def _forks(self, runs: list[Run]) -> None:
        segments = [segment for run in runs for segment in self._segments(run)]
        segments.sort(key=lambda each: (each.layer, each.length, each.parent.number if each.parent else 0))
        tokens = _packed_tokens(segments)
        for segment in segments:
            run = self.runs[segment.run]
            at = run.fork.starts[segment.run_row] + segment.first
            run.own[segment.run_row, at : at + segment.length] = torch.arange(segment.length) + segment.at
        self._tell(runs, lambda site: False)
        sites = {site for run in runs for site in run.reads if site.name not in ("final_norm", "logits")}
        end = Site("resid_post", self.layers - 1)
        ended: list[Any] = []
        sweep = Sweep(self, segments, tokens, self._parents(segments))
        taps: dict[Site, Callable[[torch.Tensor], Any]] = {
            site: (lambda value, s=site: self._offer(runs, s, value, sweep)) for site in sites
        }
        wants_end = [run for run in runs if any(site.name in ("final_norm", "logits") for site in run.reads)]
        if wants_end:
            first = taps.get(end)
            taps[end] = lambda value: ended.append(_or(first(value) if first else None, value)) or ended[-1]
        sweep.run(max(run.fork.last for run in runs), taps)
        if wants_end:
            self._ends(wants_end, ended[-1][0], sweep)
        for run in runs:
            run.own.fill_(-1)
            self._let_go(run)

    def _let_go(self, run: Run) -> None:
        """The run has ended: what was held for it is freed."""
        for index in [*self.uses.writes[run.fork.run], *self.uses.reads[run.fork.run]]:
            self.flow.release((index, None))

    def _segments(self, run: Run) -> list[Segment]:
        found = []
        for row, (tokens, first) in enumerate(zip(run.fork.tokens, run.fork.first, strict=True)):
            if first >= len(tokens):
                continue
            own = self.alone.get(tokens)
            if own is not None:
                parent, layer, first = own.parent, 0, own.first
            else:
                parent, layer = fork_from(self.tree, tokens, first), run.fork.layer
            found.append(Segment(tokens, first, parent, layer, run.fork.last, run=run.fork.run, run_row=row))
        return found

    # -- what passes a site ----------------------------------------------------------------------------------------------

    def _tell(self, runs: list[Run], every: Callable[[Site], bool]) -> None:
        """Deliver what a run reads before its fork (or at `every` site, for runs without one): the base's numbers."""
        for run in runs:
            layout = Layout(run.shared, torch.full_like(run.own, -1))
            for site, index in run.reads.items():
                if every(site) or self._before_fork(site, run):
                    self._deliver(index, self._value(site, layout, None))

    def _before_fork(self, site: Site, run: Run) -> bool:
        """Whether the base alone has all of a run's numbers at that site."""
        if any(row in self.alone for row in run.fork.tokens):
            return False
        layer = -1 if site.name == "embed" else site.layer
        return layer is not None and layer < run.fork.layer - (site.name in ("resid_post", "embed"))

    def _value(self, site: Site, layout: Layout, own: torch.Tensor | None) -> SiteValue:
        """A site's value in the presentation; `own` is this pass's packed value (for logits: of the last layer)."""
        sizes = self.loaded.card.sizes
        if site.name in ("final_norm", "logits"):
            base = self.saved.get(Site("resid_post", self.layers - 1))
            finish = self._logits if site.name == "logits" else self._normed
            tail = (sizes["d_vocab"] if site.name == "logits" else sizes["d_model"],)
            return SiteValue(layout, base, own, tail, finish=finish, entries=site.name == "logits")
        base = self.saved.get(site)
        packed = own if own is not None else base
        assert packed is not None
        return SiteValue(layout, base, own, tuple(packed.shape[1:]))

    def _normed(self, value: torch.Tensor, entries: torch.Tensor | None = None) -> torch.Tensor:
        return self.packed.final_norm(value[None])[0]

    def _logits(self, value: torch.Tensor, entries: torch.Tensor | None = None) -> torch.Tensor:
        columns = self.loaded.card.sizes["d_vocab"] if entries is None else len(entries)
        self.work.flops += 2 * value.shape[0] * value.shape[1] * columns
        return self.packed.logits(self._normed(value), entries)

    def _deliver(self, index: int, value: SiteValue) -> None:
        self.flow.deliver((index, None), (value,))

    def _offer(self, runs: list[Run], site: Site, packed: torch.Tensor, sweep: Sweep) -> torch.Tensor | None:
        """Deliver what the runs read here, then put in what they write here."""
        layer = site.layer if site.layer is not None else -1
        rounds: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        for run in runs:
            index = run.reads.get(site)
            if index is None or self._before_fork(site, run) or run.fork.last < layer:
                continue
            layout = Layout(run.shared, sweep.places(run.own))
            self._deliver(index, self._value(site, layout, packed[0]))
            final = self.uses.final[index]
            if final != index:
                self._collect(final, layout, rounds)
        if not rounds:
            return None
        changed = packed.clone()
        for patches in rounds:
            places = torch.cat([place for place, _ in patches])
            changed[0].index_copy_(0, places, torch.cat([values for _, values in patches]).to(changed.dtype))
        return changed

    def _collect(self, final: int, layout: Layout, rounds: list[list[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        value = self.flow.values[final, None][0]
        assert isinstance(value, SiteValue)
        for number, patch in enumerate(value.patches):
            places = layout.own[patch.rows, patch.positions]
            inside = places >= 0
            whole = bool(inside.all())
            if number == len(rounds):
                rounds.append([])
            rounds[number].append((places, patch.values) if whole else (places[inside], patch.values[inside]))
        node: Node = self.nodes[final]
        while isinstance(node, Write):
            self.applied.add(final)
            final = node.prev.node
            node = self.nodes[final]

    # -- the end of the model ----------------------------------------------------------------------------------------------

    def _ends(self, runs: list[Run], hidden: torch.Tensor, sweep: Sweep) -> None:
        """Deliver final norms and logits, whole logits of many runs made together."""
        waiting: list[tuple[int, SiteValue, Reading]] = []
        for run in runs:
            layout = Layout(run.shared, sweep.places(run.own))
            for site, index in run.reads.items():
                if site.name not in ("final_norm", "logits"):
                    continue
                value = self._value(site, layout, hidden)
                reading = reading_of(self.nodes, self.flow.consumers, index, run.fork) if value.entries else None
                if reading is None:
                    self._deliver(index, value)
                else:
                    waiting.append((index, value, reading))
        while waiting:
            size, batch = 0, []
            while waiting and (not batch or size + len(waiting[0][2].rows) <= MOST_LOGITS):
                batch.append(waiting.pop(0))
                size += len(batch[-1][2].rows)
            self._together(batch)

    def _together(self, batch: list[tuple[int, SiteValue, Reading]]) -> None:
        states = [replace(value, finish=None, tail=()).at(read.rows, read.positions) for _, value, read in batch]
        logits = self._logits(torch.cat(states)).split([len(state) for state in states])
        for (index, value, read), rows in zip(batch, logits, strict=True):
            self._deliver(index, replace(value, ready=Patch(read.rows, read.positions, rows)))


def _alone(forks: tuple[Fork, ...], layers: int, enters: Callable[[Fork], bool]) -> dict[Row, int]:
    """Rows that are cheaper run whole by each of their users than once for all with a suffix for each, and the first
    position edited in each."""
    shared: dict[Row, int] = defaultdict(int)
    users: dict[Row, int] = defaultdict(int)
    least: dict[Row, int] = {}
    read: set[Row] = set()
    for fork in forks:
        for row, first in zip(fork.tokens, fork.first, strict=True):
            if not enters(fork) or first == len(row):
                read.add(row)
            else:
                users[row] += 1
                least[row] = min(first, least.get(row, first))
                shared[row] += (len(row) - first) * max(fork.last + 1 - fork.layer, 0)
    return {
        row: least[row]
        for row, count in users.items()
        if row not in read and count * len(row) * layers <= len(row) * layers + shared[row]
    }


def _packed_tokens(segments: list[Segment]) -> int:
    """Give each segment its place; the number of tokens."""
    at = 0
    for segment in segments:
        segment.at = at
        at += segment.length
    return at


def _keys_at(segment: Segment, depth: int) -> tuple[int, int]:
    """The row of the store at `depth` that a segment attends to, and how many of its keys come before it."""
    parent = segment.parent
    if parent is None:
        return 0, 0
    if parent.parent is None:
        return (parent.number, segment.first) if depth == 0 else (0, 0)
    if depth == 0:
        return parent.parent.number, parent.first
    return parent.number, segment.first - parent.first


def _or(first: torch.Tensor | None, second: torch.Tensor) -> torch.Tensor:
    return second if first is None else first
