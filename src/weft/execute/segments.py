"""The pieces of a plan while they are computed: each has a place in its pass's packed tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from weft.plan.pieces import Piece

Row = tuple[int, ...]


@dataclass(eq=False)
class Segment:
    """Tokens [first, length) of `row`. `parent` computes those before; `at` is its place in its pass's packed tensors.

    It enters at `layer`, and `last` is the last layer anybody needs it in (`half`: up to z). `store` is the number of the
    pass that keeps its keys, and `number` its row there.
    """

    row: Row
    first: int
    parent: Segment | None = None
    layer: int = 0
    last: int = -1
    half: bool = False
    run: int = -1
    run_row: int = -1
    number: int = 0
    at: int = 0
    store: int = -1
    length: int = field(init=False)

    def __post_init__(self) -> None:
        self.length = len(self.row) - self.first

    @cached_property
    def keys(self) -> dict[int, tuple[int, int]]:
        """For each store that it attends to: which row there, and how many of its keys come before."""
        found: dict[int, tuple[int, int]] = {}
        until, parent = self.first, self.parent
        while parent is not None:
            found[parent.store] = (parent.number, until - parent.first)
            until, parent = parent.first, parent.parent
        return found


def segments_of(pieces: Mapping[int, Piece], numbers: Sequence[int], known: Mapping[int, Segment]) -> list[Segment]:
    """The segments of a pass, placed one after another. `known` are those of earlier passes."""
    found: list[Segment] = []
    at = 0
    for row, number in enumerate(numbers):
        piece = pieces[number]
        parent = None if piece.before is None else known[piece.before]
        run = -1 if piece.run is None else piece.run
        depth = piece.layer, piece.last, piece.half
        found.append(Segment(piece.row, piece.first, parent, *depth, run, piece.at, number=row, at=at))
        at += piece.length
    return found


def tokens_of(segments: Sequence[Segment]) -> int:
    """How many packed tokens they have."""
    return sum(segment.length for segment in segments)


def spans(segments: Sequence[Segment]) -> torch.Tensor:
    """The places of their tokens in the packed tensors, segment by segment."""
    starts, lengths = torch.tensor([each.at for each in segments]), torch.tensor([each.length for each in segments])
    if not segments:
        return torch.empty(0, dtype=torch.long)
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)
