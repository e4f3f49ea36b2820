"""What is inside attention as it passes: delivered to the runs that look, and taken back from those that write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from weft.execute.inside import Inside, check_not_blocked, mixed, of_inside, written_at
from weft.execute.lazy import Layout, Patch
from weft.ir.nodes import Ref, Site

if TYPE_CHECKING:
    from weft.execute.engine import Engine, Run
    from weft.execute.sweep import Seen, Sweep


def inside_of(engine: Engine, site: Site, layout: Layout, seen: Seen | None = None) -> Inside:
    """A run's scores or pattern in a layer, in the presentation; without `seen` the bases'."""
    own = (None, None) if seen is None else (seen.q[0], seen.k[0])
    q, k = (engine.value(each, layout, x) for each, x in zip(of_inside(site.layer), own, strict=False))
    real = (layout.shared >= 0) | (layout.own >= 0)
    assert site.layer is not None
    scores = Inside(layout, q, k, real.int().argmax(1), engine.how[site.layer])
    return scores if site.name == "scores" else replace(scores, scores=scores)


class Insides:
    """The runs of one pass that look into attention."""

    def __init__(self, engine: Engine, runs: list[Run], sweep: Sweep) -> None:
        self.engine, self.runs, self.sweep = engine, runs, sweep

    def look(self, seen: Seen) -> torch.Tensor:
        """Deliver the scores and patterns that runs read in a layer; z anew where they were written."""
        out, sites = seen.out, (Site("scores", seen.layer), Site("pattern", seen.layer))
        for run in self.runs:
            if run.reads.keys().isdisjoint(sites) or run.fork.last < seen.layer:
                continue
            if not self.engine.before_fork(sites[0], run):
                out = self._one(run, seen, out)
        return out

    def _one(self, run: Run, seen: Seen, out: torch.Tensor) -> torch.Tensor:
        layout = Layout(run.shared, self.sweep.places(run.own))
        scores = self._told(
            run, Site("scores", seen.layer), inside_of(self.engine, Site("scores", seen.layer), layout, seen)
        )
        if scores.patches:
            check_not_blocked(scores)
        pattern = self._told(run, Site("pattern", seen.layer), replace(scores, scores=scores, patches=()))
        rows, queries = written_at(scores, pattern)
        places = layout.own[rows, queries]
        own = places >= 0
        if not bool(own.any()):
            return out
        v = self.engine.value(of_inside(seen.layer)[2], layout, seen.v[0])
        new = mixed(pattern, v, rows[own], queries[own])
        return out.index_copy(1, places[own], new[None].to(out.dtype))

    def _told(self, run: Run, site: Site, value: Inside) -> Inside:
        """Deliver a run's scores or pattern, if it reads them, and give what it makes of them."""
        index = run.reads.get(site)
        if index is None:
            return value
        self.engine.deliver(index, value)
        final = self.engine.uses.final[index]
        if final == index and Ref(index) not in self.engine.uses.targets:
            return value
        made = self.engine.made(final)
        return made if isinstance(made, Inside) else replace(value, patches=(_whole(made, value.layout),))


def _whole(value: torch.Tensor, layout: Layout) -> Patch:
    """All queries that a run has of its own, from scores or a pattern [batch, head, query, key] put together."""
    rows, queries = (layout.own >= 0).nonzero(as_tuple=True)
    return Patch(rows, queries, value[rows, :, queries])
