"""Queries carried from one prompt to another: `q[l, h, t]` as q_proj gives it, before rotary, at the last token(s)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from weft.methods.filtering.sheet import Place, Sheet

if TYPE_CHECKING:
    from weft.tasks import Prompts

Head = tuple[int, int]
Queries = Mapping[Head, Any]
"""By head: its query for each row (or one for all) at each place, [row or 1, place, d_head]."""


def by_layer(heads: Sequence[Head]) -> dict[int, list[int]]:
    """The heads of each layer."""
    found: dict[int, list[int]] = {}
    for layer, head in sorted(heads):
        found.setdefault(layer, []).append(head)
    return found


def queries(
    session: Any, prompts: Prompts, heads: Sequence[Head], at: Sequence[Place], copies: int = 1
) -> dict[Head, Any]:
    """The heads' queries in a run of these prompts; of `copies` prompts each, one after the other, their mean."""
    run = session.run(list(prompts.prompts))
    places = [prompts.positions(run, place) if isinstance(place, str) else place for place in at]
    found: dict[Head, Any] = {}
    for layer, head in sorted(heads):
        seen = torch.stack([run.q[layer][spot(run, place)][:, head] for place in places], 1)
        found[layer, head] = seen.reshape(-1, copies, *seen.shape[1:]).mean(1) if copies > 1 else seen
    return found


def averaged(task: Any, prompts: Prompts) -> tuple[Prompts, int]:
    """Each prompt's copies with its answer swapped into each place of the list, and how many there are."""
    copies = task.copies(prompts)
    return task.prompts(copy.inputs[row] for row in range(len(prompts)) for copy in copies), len(copies)


def patched(
    run: Any, sheet: Sheet, at: Sequence[Place], taken: Queries, projectors: Mapping[Head, torch.Tensor] | None = None
) -> Any:
    """A fork of a run of the sheet's texts with these queries (or their projections) in place of its own."""
    fork = run.fork()
    places = sheet.places(run, at)
    for (layer, head), values in taken.items():
        for number, place in enumerate(places):
            value = values[:, number]
            if sheet.each > 1 and value.shape[0] > 1:
                value = value.repeat_interleave(sheet.each, 0)
            if projectors is not None:
                own = run.q[layer][spot(run, place)][:, head]
                value = own + (value - own) @ projectors[layer, head]
            fork.q[layer][(*spot(run, place), head)] = value
    return fork


def spot(run: Any, place: Any) -> tuple[Any, Any]:
    """An index of rows and positions: one position of all rows, or one each."""
    return (slice(None), place) if isinstance(place, int) else (run.rows, place)
