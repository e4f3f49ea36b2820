"""The engine: all runs of an experiment that it can do, in a few widening passes over the layers.

    base pass      every distinct row of tokens once, unedited; its keys and values are kept for all
    fork passes    one for each level of edited runs: the suffixes of all their rows, each entering at its first edited layer

A run's site has the base's numbers before its fork and its own after it. What the user's operations ask of a site is
delivered to the dataflow as a `SiteValue`, which is put together only where they look; what they write is put into the
packed tokens before the layer goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from weft.execute.attend import Store
from weft.execute.dataflow import Dataflow
from weft.execute.gradients import settle, together
from weft.execute.inside import of_inside
from weft.execute.insides import Insides, inside_of
from weft.execute.lazy import Layout, LazySite, Patch, SiteValue, full, whole
from weft.execute.needed import Uses
from weft.execute.packed import Packed
from weft.execute.readings import Reading, reading_of
from weft.execute.segments import Row, Segment, segments_of, tokens_of
from weft.execute.sweep import Sweep
from weft.ir.nodes import Node, Read, Ref, Site, Write
from weft.models.attention import How
from weft.plan.forks import INSIDE, Fork
from weft.plan.memory import DEFAULT, Limits
from weft.plan.pieces import Piece, Plan
from weft.plan.places import layer_of

END = ("final_norm", "logits")


@dataclass
class Work:
    """What was done, in layers times tokens, and what running each row by itself would have been."""

    passes: int = 0
    rows: int = 0
    asked: int = 0
    done: int = 0
    flops: int = 0  # in the layers' weights
    logits: int = 0  # operations of the unembedding


@dataclass(eq=False)
class Run:
    """One run: its fork, its reads by site, where its tokens lie, and the first layer in which it has numbers of its own."""

    fork: Fork
    reads: dict[Site, int]
    shared: torch.Tensor  # batch pos, in the bases' tokens
    own: torch.Tensor  # batch pos, in its pass's tokens; -1 outside its pieces
    begin: int
    own_pieces: bool


class Kept(dict[Site, torch.Tensor]):
    """What a base pass of so many tokens leaves: sites' values for all of its tokens, 0 where a token had gone."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def put(self, site: Site, value: torch.Tensor, places: torch.Tensor | None) -> None:
        """The values at a site of the tokens at `places` (None: all of them)."""
        if places is not None:
            value = value.new_zeros(self.tokens, *value.shape[1:]).index_copy_(0, places, value)
        self[site] = value


class Engine:
    """A plan, on a model."""

    def __init__(
        self, loaded: Any, nodes: tuple[Node, ...], uses: Uses, flow: Dataflow, plan: Plan, cancelled: Any,
        limits: Limits = DEFAULT,
    ) -> None:  # fmt: skip
        self.loaded, self.nodes, self.uses, self.flow, self.plan = loaded, nodes, uses, flow, plan
        self.cancelled, self.limits = cancelled, limits
        self.packed = Packed(loaded)
        self.layers = len(self.packed.layers)
        self.work = Work()
        self.applied: set[int] = set()
        self.without_effect: set[int] = set()
        self.gone: set[int] = set()  # reads that were let go before their run ended
        self.saved: dict[Site, torch.Tensor] = {}
        self.stores: list[Store] = []
        self.how: dict[int, How] = {}
        self.segments: dict[int, Segment] = {}
        self.base_tokens = 0
        self.offsets: list[int] = []  # of the tokens of each base pass among those of all
        self.runs = {fork.run: self._run(fork) for fork in plan.forks}

    # -- before anything runs --------------------------------------------------------------------------------------------

    def _run(self, fork: Fork) -> Run:
        reads = {}
        for index in self.uses.reads[fork.run]:
            node = self.nodes[index]
            if isinstance(node, Read) and index in self.uses.needed:
                reads[node.site] = index
        empty = torch.full((len(fork.tokens), fork.pos), -1)
        own = [self.plan.pieces[number] for number in self.plan.of_run[fork.run]]
        begin = min((piece.layer for piece in own), default=self.layers + 1)
        self.work.asked += self.layers * sum(len(row) for row in fork.tokens)
        return Run(fork, reads, empty, empty.clone(), begin, bool(own))

    def passes(self) -> Iterator[tuple[int, int]]:
        """Do all the passes; gives, after each, its number and how many there are."""
        bases = [numbers for numbers in self.plan.passes if self.plan.pieces[numbers[0]].run is None]
        forks = [numbers for numbers in self.plan.passes if self.plan.pieces[numbers[0]].run is not None]
        self._bases(bases)
        yield len(bases), len(self.plan.passes)
        for done, numbers in enumerate(forks):
            self._fork_pass(numbers)
            yield len(bases) + done + 1, len(self.plan.passes)

    def _bases(self, passes: list[tuple[int, ...]]) -> None:
        """Run every distinct row once, and tell the dataflow what unedited runs read."""
        pieces = self.plan.pieces.values()
        read = {site for run in self.runs.values() for site in run.reads if site.name not in END}
        keep = {made for site in read for made in (of_inside(site.layer) if site.name in INSIDE else (site,))}
        keep |= {self.entry(piece.layer) for piece in pieces if piece.run is not None and piece.layer}
        if any(site.name in END for run in self.runs.values() for site in run.reads):
            keep.add(Site("resid_post", self.layers - 1))
        parts = [self._base_pass(numbers, keep) for numbers in passes]
        for site in keep:
            like = next((part[site] for part in parts if site in part), None)
            if like is not None:
                filled = [_or(part.pop(site, None), like.new_zeros(part.tokens, *like.shape[1:])) for part in parts]
                self.saved[site] = torch.cat(filled) if len(filled) > 1 else filled[0]
        for run in self.runs.values():
            self._place(run)
        as_base = [run for run in self.runs.values() if not run.own_pieces]
        self._tell(as_base, lambda site: True)
        for run in as_base:
            at_end = self._at_end(run)
            self.applied |= at_end
            self.without_effect |= {w for w in self.uses.writes[run.fork.run] if w in self.uses.needed} - at_end
            self._let_go(run)

    def _at_end(self, run: Run) -> set[int]:
        """A run's writes to logits, of which nothing in the model comes: they need no pass."""
        read = run.reads.get(Site("logits"))
        return {w for w in self.uses.writes[run.fork.run] if w in self.uses.needed and self.uses.root[w] == read}

    def _base_pass(self, numbers: tuple[int, ...], keep: set[Site]) -> Kept:
        segments = self._segments(numbers)
        for segment in segments:
            segment.store = len(self.stores)
        store = Store(len(segments), {}, {})
        kept = Kept(tokens_of(segments))
        sweep = Sweep(self, segments, kept.tokens, self._parents(), keep_keys=store)
        sweep.run(
            max(segment.last for segment in segments),
            {site: (lambda value, s=site: kept.put(s, value[0], sweep.active_tokens())) for site in keep},
        )
        self.offsets.append(self.base_tokens)
        self.base_tokens += kept.tokens
        self.stores.append(store)
        return kept

    def _segments(self, numbers: tuple[int, ...]) -> list[Segment]:
        segments = segments_of(self.plan.pieces, numbers, self.segments)
        self.segments.update(zip(numbers, segments, strict=True))
        return segments

    def entry(self, layer: int) -> Site:
        """The site whose value enters a layer."""
        return Site("embed") if layer == 0 else Site("resid_post", layer - 1)

    def _place(self, run: Run) -> None:
        """Where each position's token is in the bases."""
        own = {piece.at: piece for piece in (self.plan.pieces[number] for number in self.plan.of_run[run.fork.run])}
        for row, (tokens, start) in enumerate(zip(run.fork.tokens, run.fork.starts, strict=True)):
            for number in self._chain(tokens, own.get(row)):
                segment = self.segments[number]
                at = start + segment.first
                until = min(run.fork.pos, at + segment.length)
                places = torch.arange(segment.length) + segment.at + self.offsets[segment.store]
                run.shared[row, at:until] = places[: until - at]

    def _chain(self, row: Row, own: Piece | None) -> list[int]:
        """The bases that hold a row's tokens, or those before the part that a run computes for itself."""
        if row in self.plan.bases:
            return self.plan.chain(self.plan.bases[row])
        return [] if own is None or own.before is None else self.plan.chain(own.before)

    def _parents(self) -> Callable[[list[Segment]], list[tuple[Store, list[int], list[int]]]]:
        """For segments: each store they attend to, with the row and the number of keys of each."""

        def parts(members: list[Segment]) -> list[tuple[Store, list[int], list[int]]]:
            keys = [segment.keys for segment in members]
            found = []
            for number, store in enumerate(self.stores):
                pairs = [each.get(number, (0, 0)) for each in keys]
                if any(valid for _, valid in pairs) and store.keys:  # no keys: no layer was run, and none will be
                    found.append((store, [row for row, _ in pairs], [valid for _, valid in pairs]))
            return found

        return parts

    # -- edited runs -----------------------------------------------------------------------------------------------------

    def _fork_pass(self, numbers: tuple[int, ...]) -> None:
        """Run the edited runs of one pass, those with gradients through a graph."""
        run = self.plan.pieces[numbers[0]].run
        if run is not None and self.runs[run].fork.grad:
            with torch.enable_grad(), together(self.flow):
                self._forks(numbers)
        else:
            self._forks(numbers)

    def _forks(self, numbers: tuple[int, ...]) -> None:
        segments = self._segments(numbers)
        runs = [self.runs[number] for number in dict.fromkeys(segment.run for segment in segments)]
        for segment in segments:
            run = self.runs[segment.run]
            at = run.fork.starts[segment.run_row] + segment.first
            run.own[segment.run_row, at : at + segment.length] = torch.arange(segment.length) + segment.at
        self._tell(runs, lambda site: False)
        sites = {site for run in runs for site in run.reads if site.name not in END}
        end = Site("resid_post", self.layers - 1)
        ended: list[Any] = []
        sweep = Sweep(self, segments, tokens_of(segments), self._parents())
        taps: dict[Site, Callable[[Any], Any]] = {
            site: (lambda value, s=site: self._offer(runs, s, value, sweep))
            for site in sites
            if site.name not in INSIDE
        }
        inside = Insides(self, runs, sweep)
        taps |= {Site("pattern", site.layer): inside.look for site in sites if site.name in INSIDE}
        wants_end = [run for run in runs if any(site.name in END for site in run.reads)]
        if wants_end:
            first = taps.get(end)
            taps[end] = lambda value: ended.append(_or(first(value) if first else None, value)) or ended[-1]
        sweep.run(max(segment.last for segment in segments), taps)
        if wants_end:
            self._ends(wants_end, ended[-1][0], sweep)
        for run in runs:
            run.own.fill_(-1)
            self._let_go(run)
        for number in numbers:
            del self.segments[number]

    def _let_go(self, run: Run) -> None:
        """The run has ended: what was held for it is freed."""
        for index in [*self.uses.writes[run.fork.run], *self.uses.reads[run.fork.run]]:
            if index not in self.gone:
                self.flow.release((index, None))

    # -- what passes a site ----------------------------------------------------------------------------------------------

    def _tell(self, runs: list[Run], every: Callable[[Site], bool]) -> None:
        """Deliver what a run reads before its fork (or at `every` site, for runs without one): the base's numbers."""
        for run in runs:
            layout = Layout(run.shared, torch.full_like(run.own, -1))
            for site, index in run.reads.items():
                if every(site) or self.before_fork(site, run):
                    self.deliver(index, self._value(site, layout, None))

    def before_fork(self, site: Site, run: Run) -> bool:
        """Whether the base alone has all of a run's numbers at that site."""
        layer = layer_of(self.loaded.card, site)
        return layer < min(run.begin, self.layers) - (site.name == "resid_post" or layer < 0)

    def _value(self, site: Site, layout: Layout, own: torch.Tensor | None) -> LazySite:
        """A site's value in the presentation; `own` is this pass's packed value (for logits: of the last layer)."""
        if site.name in INSIDE:
            return inside_of(self, site, layout)
        return self.value(site, layout, own)

    def value(self, site: Site, layout: Layout, own: torch.Tensor | None) -> SiteValue:
        """The value of a site that has one for each token."""
        sizes = self.loaded.card.sizes
        if site.name in END:
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
        return self._unembedded(self._normed(value), entries)

    def _unembedded(self, normed: torch.Tensor, entries: torch.Tensor | None = None) -> torch.Tensor:
        columns = self.loaded.card.sizes["d_vocab"] if entries is None else len(entries)
        self.work.logits += 2 * normed.shape[0] * normed.shape[1] * columns
        return self.packed.logits(normed, entries)

    def deliver(self, index: int, value: LazySite) -> None:
        """Tell the dataflow what a run reads."""
        self.flow.deliver((index, None), (self.flow.target(Ref(index), value),))

    def _offer(self, runs: list[Run], site: Site, packed: torch.Tensor, sweep: Sweep) -> torch.Tensor | None:
        """Deliver what the runs read here, then put in what they write here."""
        layer = layer_of(self.loaded.card, site)
        rounds: list[list[tuple[torch.Tensor, torch.Tensor]]] = []
        for run in runs:
            index = run.reads.get(site)
            if index is None or self.before_fork(site, run) or run.fork.last < layer:
                continue
            layout = Layout(run.shared, sweep.places(run.own))
            self.deliver(index, self._value(site, layout, packed[0]))
            final = self.uses.final[index]
            if final != index or Ref(index) in self.uses.targets:
                self._collect(final, layout, rounds)
        if not rounds:
            return None
        changed = packed.clone()
        for patches in rounds:
            places = torch.cat([place for place, _ in patches])
            changed[0].index_copy_(0, places, torch.cat([values for _, values in patches]).to(changed.dtype))
        return changed

    def _collect(self, final: int, layout: Layout, rounds: list[list[tuple[torch.Tensor, torch.Tensor]]]) -> None:
        value = self.made(final)
        patches = value.patches if isinstance(value, SiteValue) else (whole(value, layout),)
        for number, patch in enumerate(patches):
            places = layout.own[patch.rows, patch.positions]
            inside = places >= 0
            every = bool(inside.all())
            if number == len(rounds):
                rounds.append([])
            rounds[number].append((places, patch.values) if every else (places[inside], patch.values[inside]))

    def made(self, final: int) -> Any:
        """What a run goes on with at a site; the writes that led there are counted."""
        if not self.flow.has((final, None)):
            settle(self.flow)  # an edit may hang on a gradient of what came before it in this pass
        value = self.flow.values[final, None][0]
        node: Node = self.nodes[final]
        while isinstance(node, Write):
            self.applied.add(final)
            final = node.prev.node
            node = self.nodes[final]
        return value

    # -- the end of the model ----------------------------------------------------------------------------------------------

    def _ends(self, runs: list[Run], hidden: torch.Tensor, sweep: Sweep) -> None:
        """Deliver final norms and logits, whole logits of many runs made together."""
        waiting: list[tuple[int, SiteValue, Reading]] = []
        for run in runs:
            layout = Layout(run.shared, sweep.places(run.own))
            normed = self._final_norm(run, layout, hidden)
            index = run.reads.get(Site("logits"))
            if index is not None:
                value = self.value(Site("logits"), layout, hidden)
                if normed is not None:
                    value = replace(value, source=normed, finish=self._unembedded)
                reading = None if normed else reading_of(self.nodes, self.flow.consumers, index, run.fork)
                if reading is None:
                    self.deliver(index, value)
                else:
                    waiting.append((index, value, reading))
                self.applied.update(self._at_end(run))
        while waiting:
            size, batch = 0, []
            while waiting and (not batch or size + len(waiting[0][2].rows) <= self.limits.logits):
                batch.append(waiting.pop(0))
                size += len(batch[-1][2].rows)
            self._together(batch)

    def _final_norm(self, run: Run, layout: Layout, hidden: torch.Tensor) -> SiteValue | None:
        """Deliver a run's final norm; what it makes of that, if it does."""
        index = run.reads.get(Site("final_norm"))
        if index is None:
            return None
        value = self.value(Site("final_norm"), layout, hidden)
        self.deliver(index, value)
        final = self.uses.final[index]
        if final == index and Ref(index) not in self.uses.targets:
            return None
        made = self.made(final)
        if run.fork.grad:  # put together, what is written over stays in the graph, and has a gradient of 0
            made = full(made)
        return made if isinstance(made, SiteValue) else replace(value, patches=(whole(made, layout),))

    def _together(self, batch: list[tuple[int, SiteValue, Reading]]) -> None:
        states = [replace(value, finish=None, tail=()).at(read.rows, read.positions) for _, value, read in batch]
        logits = self._logits(torch.cat(states)).split([len(state) for state in states])
        for (index, value, read), rows in zip(batch, logits, strict=True):
            self.deliver(index, replace(value, ready=Patch(read.rows, read.positions, rows)))
            if self.uses.final[index] == index:  # nothing is written there, so the run need not hold all its logits
                self.flow.release((index, None))
                self.gone.add(index)


def _or(first: torch.Tensor | None, second: torch.Tensor) -> torch.Tensor:
    return second if first is None else first
