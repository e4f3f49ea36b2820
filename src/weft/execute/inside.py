"""Scores and patterns of attention, [batch, head, query, key], made only for the queries, heads and keys looked at.

They are never there whole: attention of packed tokens has no use for them. A run that reads or writes them has them made
from its queries and keys, row by row; a query whose scores or pattern were written gets its z anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int

from weft.errors import ExecutionError
from weft.execute.lazy import Layout, Lazy, LazySite, Patch, SiteValue, mesh, patched, plain
from weft.ir.nodes import Site, ViewStep
from weft.ir.views import apply_chain
from weft.models.attention import How
from weft.plan.places import Cut, cut

Rows = Int[torch.Tensor, "m"]


class ByRow(NamedTuple):
    """Places (row, position) sorted into rows: `rows` [u], and for each place its row among these and its slot there."""

    rows: torch.Tensor
    row: torch.Tensor
    slot: torch.Tensor
    width: int

    @staticmethod
    def of(rows: torch.Tensor) -> ByRow:
        found, row = torch.unique(rows, return_inverse=True)
        order = torch.argsort(row, stable=True)
        counts = torch.bincount(row, minlength=len(found))
        slot = torch.empty_like(row)
        slot[order] = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row[order]]
        return ByRow(found, row, slot, int(counts.max()) if len(counts) else 0)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """[m, H, E] by place → [u, H, width, E] by row, 0 where a row has fewer"""
        spread = x.new_zeros(len(self.rows), self.width, *x.shape[1:])
        return spread.index_put((self.row, self.slot), x).transpose(1, 2)

    def gathered(self, x: torch.Tensor) -> torch.Tensor:
        """[u, H, width, E] by row → [m, H, E] by place"""
        return x.transpose(1, 2)[self.row, self.slot]

    def all_of(self, site: SiteValue, pos: int) -> torch.Tensor:
        """Keys or values of all positions of these rows: [u, K, pos, D]"""
        places = self.rows.repeat_interleave(pos), torch.arange(pos).repeat(len(self.rows))
        return site.at(*places).reshape(len(self.rows), pos, *site.tail).transpose(1, 2)


@dataclass(frozen=True, eq=False)
class Inside(LazySite):
    """Scores, or where `scores` is given the pattern these make. `start` [batch] is each row's first real position."""

    layout: Layout
    q: SiteValue
    k: SiteValue
    start: torch.Tensor
    how: How
    scores: Inside | None = None
    patches: tuple[Patch, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        batch, pos = self.layout.shared.shape
        return batch, self.q.tail[0], pos, pos

    def at(self, rows: Rows, queries: Rows, heads: range | None = None) -> Float[torch.Tensor, "m head key"]:
        """The values of those rows and queries, of some heads (None: all); padding reads as 0."""
        if not self.patches:
            return self._made(rows, queries, heads)
        value = self._made(rows, queries, None)
        for patch in self.patches:
            value = patched(value, rows, queries, patch)
        return value if heads is None else value[:, _slice(heads)]

    def _made(self, rows: Rows, queries: Rows, heads: range | None) -> torch.Tensor:
        value = self._scores(rows, queries, heads) if self.scores is None else self._pattern(rows, queries, heads)
        padding = self.padding(rows) | (queries < self.start[rows])[:, None]
        return value.masked_fill(padding[:, None], 0)

    def padding(self, rows: Rows) -> torch.Tensor:
        """Which key positions of those rows are padding: [m, key]."""
        return torch.arange(self.shape[-1]) < self.start[rows][:, None]

    def _scores(self, rows: Rows, queries: Rows, heads: range | None) -> torch.Tensor:
        pos, by_row = self.shape[-1], ByRow.of(rows)
        keys = by_row.all_of(self.k, pos)  # u K key D
        q = self.q.at(rows, queries) * self.how.scale
        if heads is not None:
            per = q.shape[1] // keys.shape[1]
            q, keys = q[:, _slice(heads)], keys[:, torch.tensor(heads, dtype=torch.long) // per]
        folded = by_row.spread(q)  # u H width D
        scores = folded.reshape(len(keys), keys.shape[1], -1, q.shape[-1]) @ keys.transpose(-1, -2)
        scores = by_row.gathered(scores.reshape(*folded.shape[:3], pos))  # m H key
        if self.how.softcap is not None:
            scores = torch.tanh(scores / self.how.softcap) * self.how.softcap
        return self._masked(scores, queries - self.start[rows], torch.arange(pos) - self.start[rows][:, None], heads)

    def _masked(self, scores: torch.Tensor, queries: Rows, keys: torch.Tensor, heads: range | None) -> torch.Tensor:
        """With the model's own bias and mask. Positions count from each row's start: [m], and [m, key]."""
        if self.how.key_bias is not None:
            bias = self.how.key_bias(keys).transpose(0, 1)
            scores = scores + (bias if heads is None else bias[:, _slice(heads)])
        queries = queries[:, None].expand_as(keys)
        seen = keys <= queries if self.how.rule is None else self.how.rule.visible(queries, keys)
        return scores.masked_fill(~seen[:, None], float("-inf"))

    def _pattern(self, rows: Rows, queries: Rows, heads: range | None) -> torch.Tensor:
        assert self.scores is not None
        scores = self.scores.at(rows, queries, heads).masked_fill(self.padding(rows)[:, None], float("-inf"))
        dtype = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype
        if self.how.sinks is None:
            return torch.softmax(scores, -1, dtype=dtype).to(scores.dtype)
        sinks = self.how.sinks if heads is None else self.how.sinks[_slice(heads)]
        with_sinks = torch.cat([scores, sinks[:, None].expand(*scores.shape[:-1], 1)], -1)
        return torch.softmax(with_sinks, -1, dtype=dtype)[..., :-1].to(scores.dtype)

    def full(self) -> torch.Tensor:
        return Part(self, cut((), self.shape)).full()

    # -- what operations ask -------------------------------------------------------------------------------------------

    def op(self, name: str, args: tuple[Any, ...]) -> Any:
        """What an operation on this value gives, where it needs only some of it; None where it needs all."""
        if name == "index_put" and len(args) >= 2:
            return self._put(*args)
        return Part(self, cut((), self.shape)).op(name, args)

    def _put(self, indices: Any, values: torch.Tensor, accumulate: bool = False) -> Any:
        places = _pairs(indices, 2, (self.shape[0], self.shape[2]))
        if places is None or len(torch.unique(places[0])) != len(places[0]):
            return None
        here = self.at(*places)
        new = here + values if accumulate else values.expand_as(here)
        return replace(self, patches=(*self.patches, Patch(*places, new)))

    def written(self, view: tuple[ViewStep, ...], value: torch.Tensor) -> Inside:
        """This value with what `view` leads to replaced."""
        found = cut(view, self.shape)
        rows, queries = mesh(found.ranges[0], found.ranges[2])
        lead = len(found.ranges[0]), len(found.ranges[2])
        whole = self.at(rows, queries).reshape(*lead, *self.shape[1::2]).transpose(1, 2).clone()  # rows head query key
        place = (slice(None), _slice(found.ranges[1]), slice(None), _slice(found.ranges[3]))
        part = whole[place].clone(memory_format=torch.contiguous_format)
        shown = part.reshape(_without(tuple(part.shape), found.gone))
        offset, sizes, strides = apply_chain(tuple(shown.shape), (), view[found.used :])
        shown.as_strided(sizes, strides, offset).copy_(value)
        whole[place] = shown.reshape(part.shape)
        return replace(self, patches=(*self.patches, Patch(rows, queries, whole.transpose(1, 2).flatten(0, 1))))


@dataclass(frozen=True, eq=False)
class Part(Lazy):
    """Some rows, heads, queries and keys of scores or patterns; an axis selected by one number is gone."""

    site: Inside
    cut: Cut

    @property
    def shape(self) -> tuple[int, ...]:
        return _without(tuple(map(len, self.cut.ranges)), self.cut.gone)

    def full(self) -> torch.Tensor:
        rows, heads, queries, keys = self.cut.ranges
        found = self.site.at(*mesh(rows, queries), heads)[..., _slice(keys)]
        return found.reshape(len(rows), len(queries), *found.shape[1:]).transpose(1, 2).reshape(self.shape)

    def op(self, name: str, args: tuple[Any, ...]) -> Any:
        """A part of this part."""
        if name in ("select.int", "slice.Tensor"):
            return self._narrowed(ViewStep(name, args))
        if name == "index.Tensor" and not self.cut.gone[0] and not self.cut.gone[2]:
            return self._indexed(args[0])
        return None

    def _narrowed(self, step: ViewStep) -> Part | None:
        ranges, gone = list(self.cut.ranges), list(self.cut.gone)
        left = [axis for axis, is_gone in enumerate(gone) if not is_gone]
        found = cut((step,), self.shape)
        if not found.used:
            return None
        for axis, taken, is_gone in zip(left, found.ranges, found.gone, strict=True):
            ranges[axis], gone[axis] = ranges[axis][_slice(taken)], is_gone
        return Part(self.site, Cut(tuple(ranges), tuple(gone), 0))

    def _indexed(self, indices: Any) -> torch.Tensor | None:
        """One query of each of some rows."""
        lengths = len(self.cut.ranges[0]), len(self.cut.ranges[2])
        places = _pairs(indices, 1 if self.cut.gone[1] else 2, lengths)
        if places is None:
            return None
        rows, queries = (torch.tensor(self.cut.ranges[axis])[place] for axis, place in zip((0, 2), places, strict=True))
        found = self.site.at(rows, queries, self.cut.ranges[1])[..., _slice(self.cut.ranges[3])]
        return found.reshape(_without(tuple(found.shape), (False, self.cut.gone[1], self.cut.gone[3])))


def mixed(pattern: Inside, v: SiteValue, rows: Rows, queries: Rows) -> Float[torch.Tensor, "m head d_head"]:
    """z of those rows and queries."""
    pos, by_row = pattern.shape[-1], ByRow.of(rows)
    weights = by_row.spread(pattern.at(rows, queries).masked_fill(pattern.padding(rows)[:, None], 0))
    values = by_row.all_of(v, pos)
    z = weights.reshape(len(values), values.shape[1], -1, pos) @ values
    return by_row.gathered(z.reshape(*weights.shape[:3], -1))


def of_inside(layer: int | None) -> tuple[Site, Site, Site]:
    """What scores, patterns and z are made of; "value" is v as attention has it."""
    return Site("q_rot", layer), Site("k_rot", layer), Site("value", layer)


def written_at(*values: Inside) -> tuple[Rows, Rows]:
    """The rows and queries, each once, at which any of these was written."""
    patches = [patch for value in values for patch in value.patches]
    pairs = [torch.stack([patch.rows, patch.positions]) for patch in patches]
    rows, queries = torch.unique(torch.cat(pairs, 1), dim=1) if pairs else torch.empty(2, 0, dtype=torch.long)
    return rows, queries


def check_not_blocked(scores: Inside) -> None:
    """A query that a write left no key has no softmax."""
    rows, queries = written_at(scores)
    left = scores.at(rows, queries).masked_fill(scores.padding(rows)[:, None], float("-inf"))
    blocked = left.isneginf().all(-1) & (queries >= scores.start[rows])[:, None]
    if bool(blocked.any()):
        at, head = (int(each) for each in blocked.nonzero()[0])
        raise ExecutionError(
            f"scores: every key of row {int(rows[at])}, head {head}, query position {int(queries[at])} is blocked "
            "(-inf); leave at least one, e.g. position 0, or set the pattern to zero instead",
        )


def _pairs(indices: Any, query: int, sizes: tuple[int, int]) -> tuple[Rows, Rows] | None:
    """Rows and queries of an index that names one of each at a time, and nothing on the other axes."""
    given = {axis: index for axis, index in enumerate(indices) if index is not None}
    if set(given) != {0, query} or not all(plain(index) for index in given.values()):
        return None
    rows, queries = torch.broadcast_tensors(given[0], given[query])
    return (rows % sizes[0], queries % sizes[1]) if rows.dim() == 1 else None


def _without(shape: tuple[int, ...], gone: tuple[bool, ...]) -> tuple[int, ...]:
    return tuple(size for size, is_gone in zip(shape, gone, strict=True) if not is_gone)


def _slice(taken: range) -> slice:
    return slice(taken.start, taken.stop, taken.step)
