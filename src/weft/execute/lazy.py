"""A site's value in the user's presentation, put together only where somebody looks.

A run's site has its base's numbers before the fork and its own after it. `SiteValue` knows where each row's tokens lie in
the packed tensors; selections of positions (and, for logits, of vocabulary entries) are answered without the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from weft.ir.nodes import ViewStep
from weft.ir.views import apply_chain
from weft.plan.places import box_of


@dataclass(frozen=True, eq=False)
class Layout:
    """Where a run's tokens are: for each row and position of the presentation, the packed token.

    `shared` [batch, pos] counts in the base's tokens, `own` in this pass's; -1 where there is none (padding: both).
    """

    shared: torch.Tensor
    own: torch.Tensor

    def without_own(self) -> Layout:
        """As it was before the fork."""
        return Layout(self.shared, torch.full_like(self.own, -1))


class Lazy(ABC):
    """A value that is put together only where somebody looks."""

    @abstractmethod
    def full(self) -> torch.Tensor:
        """All of it."""

    @abstractmethod
    def op(self, name: str, args: tuple[Any, ...]) -> Any:
        """What an operation on it gives, where that needs only some of it; None where it needs all."""


class LazySite(Lazy):
    """A whole site, which may be written."""

    layout: Layout
    patches: tuple[Patch, ...]

    @abstractmethod
    def written(self, view: tuple[ViewStep, ...], value: torch.Tensor) -> LazySite:
        """This value with what `view` leads to replaced."""


@dataclass(frozen=True, eq=False)
class Patch:
    """New numbers at some places: token-wise rows and positions [m], and the values [m, …]."""

    rows: torch.Tensor
    positions: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, eq=False)
class SiteValue(LazySite):
    """A value [batch, pos, *tail]. `base` and `own` are packed, [token, *tail]; `finish` turns tokens into what is read
    (for logits: norm and unembedding, of some vocabulary entries where these are named), `ready` are such readings made
    beforehand, together with those of other runs; `source` is another site's value that tokens are taken of."""

    layout: Layout
    base: torch.Tensor | None
    own: torch.Tensor | None
    tail: tuple[int, ...]
    patches: tuple[Patch, ...] = ()
    finish: Callable[..., torch.Tensor] | None = None
    ready: Patch | None = None
    entries: bool = False
    source: SiteValue | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.layout.shared.shape, *self.tail)

    def at(self, rows: torch.Tensor, positions: torch.Tensor, entries: torch.Tensor | None = None) -> torch.Tensor:
        """The values at those places: [m, *tail]; padding reads as 0."""
        if self.ready is not None and entries is None and not self.patches and same_places(rows, positions, self.ready):
            return self.ready.values
        own, shared = self.layout.own[rows, positions], self.layout.shared[rows, positions]
        value = self._mixed(own, shared) if self.source is None else self.source.at(rows, positions)
        if self.finish is not None:
            value = self.finish(value, entries)
        missing = (own < 0) & (shared < 0)
        if bool(missing.any()):
            value = value.masked_fill(missing.reshape(-1, *[1] * (value.dim() - 1)), 0)
        for patch in self.patches:
            value = patched(value, rows, positions, patch)
        return value

    def _mixed(self, own: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        mine = own >= 0
        if self.own is not None and bool(mine.all()):
            return self.own.index_select(0, own)
        assert self.base is not None or self.own is not None
        if self.own is None or not bool(mine.any()):
            source = self.base if self.base is not None else self.own
            assert source is not None
            return source.index_select(0, shared.clamp(min=0))
        if self.base is None:
            return self.own.index_select(0, own.clamp(min=0))
        value = self.base.index_select(0, shared.clamp(min=0))
        value[mine] = self.own.index_select(0, own[mine])
        return value

    def full(self) -> torch.Tensor:
        """All of it."""
        batch, pos = self.layout.shared.shape
        rows, positions = mesh(range(batch), range(pos))
        return self.at(rows, positions).reshape(self.shape)

    # -- what operations ask -------------------------------------------------------------------------------------------

    def op(self, name: str, args: tuple[Any, ...]) -> Any:
        """What an operation on this value gives, where it needs only some places; None where it needs all."""
        if name in ("select.int", "slice.Tensor"):
            return self._selected(ViewStep(name, args))
        if name == "index.Tensor":
            return self._indexed(args[0])
        if name == "index_put" and len(args) >= 2:
            return self._put(*args)
        return None

    def _selected(self, step: ViewStep) -> Any:
        batch, pos = self.layout.shared.shape
        place = box_of((step,), batch, pos)
        if place is None:
            return None
        box = place.box
        rows, positions = mesh(box.rows, box.positions)
        lead = [len(axis) for axis, gone in ((box.rows, box.one_row), (box.positions, box.one_position)) if not gone]
        if self.entries:
            return Picked(self, rows, positions, (*lead, *self.tail))
        return self.at(rows, positions).reshape(*lead, *self.tail)

    def _indexed(self, indices: Any) -> Any:
        if len(indices) < 2 or any(not plain(index) for index in indices[:2]) or any(i is None for i in indices[2:]):
            return None
        if not all(within(index, size) for index, size in zip(indices[:2], self.shape, strict=False)):
            return None  # the operation itself says so
        rows, positions = self._places(indices[0], indices[1])
        if rows.dim() != 1:
            return None
        rest = tuple(indices[2:])
        if self.entries and not rest:
            return Picked(self, rows, positions, (len(rows), *self.tail))
        value = self.at(rows, positions)
        return value[(torch.arange(len(rows)), *rest)] if rest else value

    def _put(self, indices: Any, values: torch.Tensor, accumulate: bool = False) -> Any:
        if len(indices) < 2 or any(not plain(index) for index in indices[:2]) or any(i is None for i in indices[2:]):
            return None
        if not all(within(index, size) for index, size in zip(indices[:2], self.shape, strict=False)):
            return None
        rows, positions = self._places(indices[0], indices[1])
        if rows.dim() != 1 or len(torch.unique(rows)) != len(rows):
            return None
        here = self.at(rows, positions)
        new = here.index_put((torch.arange(len(rows)), *indices[2:]), values, accumulate)
        return replace(self, patches=(*self.patches, Patch(rows, positions, new)))

    def _places(self, rows: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        batch, pos = self.layout.shared.shape
        rows, positions = torch.broadcast_tensors(rows, positions)
        return rows % batch, positions % pos

    def written(self, view: tuple[ViewStep, ...], value: torch.Tensor) -> SiteValue:
        """This value with what `view` leads to replaced: a patch where that is a box, else all of it."""
        batch, pos = self.layout.shared.shape
        place = box_of(view, batch, pos)
        box_rows, box_positions = (range(batch), range(pos)) if place is None else (place.box.rows, place.box.positions)
        rows, positions = mesh(box_rows, box_positions)
        gone = (False, False) if place is None else (place.box.one_row, place.box.one_position)
        lead = [len(axis) for axis, is_gone in zip((box_rows, box_positions), gone, strict=True) if not is_gone]
        rest = view if place is None else place.rest
        if not rest:
            new = value.expand(*lead, *self.tail).reshape(-1, *self.tail)
        else:
            new = self.at(rows, positions).reshape(*lead, *self.tail)
            offset, sizes, strides = apply_chain(tuple(new.shape), (), rest)
            new.as_strided(sizes, strides, offset).copy_(value)
            new = new.reshape(-1, *self.tail)
        return replace(self, patches=(*self.patches, Patch(rows, positions, new)))


@dataclass(frozen=True, eq=False)
class Picked(Lazy):
    """Logits at some places, [*lead, vocab], of which perhaps only a few entries are wanted."""

    site: SiteValue
    rows: torch.Tensor
    positions: torch.Tensor
    shape: tuple[int, ...]

    def full(self) -> torch.Tensor:
        return self.site.at(self.rows, self.positions).reshape(self.shape)

    def op(self, name: str, args: tuple[Any, ...]) -> Any:
        """One vocabulary entry for all, or one or several for each row."""
        if self.site.patches or self.site.ready is not None:
            return None
        axis = len(self.shape) - 1
        if name == "select.int" and args[0] == axis:
            entry = torch.tensor([args[1] % self.shape[-1]])
            return self.site.at(self.rows, self.positions, entry).reshape(self.shape[:-1])
        if name == "index.Tensor" and axis == 1 and len(args[0]) == 2 and all(plain(index) for index in args[0]):
            if not all(within(index, size) for index, size in zip(args[0], self.shape, strict=True)):
                return None
            rows, entries = (index % size for index, size in zip(args[0], self.shape, strict=True))
            if rows.dim() > 1 or entries.dim() > 1:
                return None
            wanted, place = torch.unique(entries, return_inverse=True)
            rows, place = torch.broadcast_tensors(rows, place)
            return self.site.at(self.rows, self.positions, wanted)[rows, place]
        if name == "gather" and args[0] in (axis, -1):
            return self._gathered(args[1])
        return None

    def _gathered(self, index: torch.Tensor) -> torch.Tensor | None:
        """Entries [*lead, n] of each row."""
        if not plain(index) or tuple(index.shape[:-1]) != self.shape[:-1] or not index.numel():
            return None
        if int(index.min()) < 0 or int(index.max()) >= self.shape[-1]:
            return None  # the operation itself says so
        wanted, place = torch.unique(index, return_inverse=True)
        picked = self.site.at(self.rows, self.positions, wanted)
        return picked.gather(-1, place.reshape(len(picked), -1)).reshape(index.shape)


def mesh(rows: range, positions: range) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs, row by row."""
    r = torch.arange(rows.start, rows.stop, rows.step)
    p = torch.arange(positions.start, positions.stop, positions.step)
    return r.repeat_interleave(len(p)), p.repeat(len(r))


def patched(value: torch.Tensor, rows: torch.Tensor, positions: torch.Tensor, patch: Patch) -> torch.Tensor:
    if same_places(rows, positions, patch):
        return patch.values.clone()
    width = int(max(positions.max(), patch.positions.max())) + 1 if len(positions) and len(patch.positions) else 1
    wanted, changed = rows * width + positions, patch.rows * width + patch.positions
    ordered, order = changed.sort()
    place = torch.searchsorted(ordered, wanted).clamp(max=max(len(ordered) - 1, 0))
    hit = ordered[place] == wanted if len(ordered) else torch.zeros(len(wanted), dtype=torch.bool)
    value = value.clone()
    value[hit] = patch.values[order[place[hit]]] if len(ordered) else value[hit]
    return value


def same_places(rows: torch.Tensor, positions: torch.Tensor, patch: Patch) -> bool:
    """Whether a patch is for just these places, in this order."""
    return len(rows) == len(patch.rows) and torch.equal(rows, patch.rows) and torch.equal(positions, patch.positions)


def within(index: torch.Tensor, size: int) -> bool:
    """Whether every index is there, counted from the front or from the end: `%` would let any through."""
    return not index.numel() or (int(index.min()) >= -size and int(index.max()) < size)


def plain(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.int64, torch.int32)


def whole(value: torch.Tensor, layout: Layout) -> Patch:
    """All that a run has of its own, from a site's value [batch, pos, …] put together."""
    rows, positions = (layout.own >= 0).nonzero(as_tuple=True)
    return Patch(rows, positions, value[rows, positions])


def full(value: Any) -> Any:
    """A value as a tensor."""
    return value.full() if isinstance(value, Lazy) else value


__all__ = ["Layout", "Lazy", "LazySite", "Patch", "Picked", "SiteValue", "full", "mesh", "patched", "plain", "whole"]
