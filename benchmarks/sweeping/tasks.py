"""The tasks, and the inputs that every contestant of a task gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from sweeping.models import SHAPES, Shape


class Padded(NamedTuple):
    """Prompts of different lengths, padded on the left as a user of transformers would."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    start: torch.Tensor


@dataclass(frozen=True)
class Data:
    """The inputs of a task. Rows are lists of token ids; `at` is the edited position in each row, or empty: the last."""

    shape: Shape
    clean: list[list[int]]
    corrupt: list[list[int]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)  # metric: logit difference; empty: log-probability
    patches: list[tuple[int, int]] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    vectors: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    layer: int = 0
    steps: int = 0

    @property
    def ragged(self) -> bool:
        return len({len(row) for row in self.clean}) > 1

    def score(self, logits: torch.Tensor) -> torch.Tensor:
        """The metric of logits [..., batch, vocab], for contestants who have no metric of their own."""
        rows = torch.arange(len(self.answers))
        picked = logits[..., rows, self.answers]
        if self.others:
            return picked - logits[..., rows, self.others]
        return picked - logits.logsumexp(-1)


def pad(rows: list[list[int]]) -> Padded:
    longest = max(len(row) for row in rows)
    start = torch.tensor([longest - len(row) for row in rows])
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = (torch.arange(longest) >= start[:, None]).long()
    return Padded(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0), start)


@dataclass(frozen=True)
class Task:
    """`calls`: the function of a rival that does it. `inner`: times it is repeated within one measurement.

    `bars` are the least ratios asked for against a rival, `limit` the ratio against hooks that counting FLOPs allows, and
    `flops` the counted work in GFLOP, all for the GPT-2 shape.
    """

    key: str
    calls: str
    title: str
    make: Callable[[Shape, bool], Data]
    inner: int = 1
    models: tuple[str, ...] = ("gpt2", "llama")
    bars: dict[str, float] = field(default_factory=dict)
    limit: float | None = None

    def data(self, model: str, quick: bool, sample: int = 0) -> Data:
        """The task's inputs on a model; with `sample`, so many patches at most, spread evenly."""
        data = self.make(SHAPES[model], quick)
        if sample and len(data.patches) > sample:
            step = len(data.patches) / sample
            data = replace(data, patches=[data.patches[int(i * step)] for i in range(sample)])
        return data


def small(data: Data) -> Data:
    """The same task with less to do, for the run that warms up."""
    return replace(data, patches=data.patches[:2], steps=min(data.steps, 2))


def _rows(generator: torch.Generator, vocabulary: int, lengths: list[int]) -> list[list[int]]:
    return [torch.randint(1, vocabulary, (n,), generator=generator).tolist() for n in lengths]


def head_sweep(shape: Shape, lengths: list[int], difference: bool = False, before_end: int | None = None) -> Data:
    """Every head's z, patched at the last position, in prompts of these lengths; with `before_end` at one position named
    for each row: its last, or so many more before that with every row."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda: torch.randint(1, shape.vocabulary, (len(lengths),), generator=generator).tolist()  # noqa: E731
    return Data(
        shape,
        clean=_rows(generator, shape.vocabulary, lengths),
        corrupt=_rows(generator, shape.vocabulary, lengths),
        answers=draw(),
        others=draw() if difference else [],
        patches=[(layer, head) for layer in range(shape.layers) for head in range(shape.heads)],
        at=[] if before_end is None else [max(n - 1 - before_end * row, 0) for row, n in enumerate(lengths)],
    )


def _a(tokens: int, difference: bool = False) -> Callable[[Shape, bool], Data]:
    return lambda shape, quick: head_sweep(shape, [tokens // 4] * 3 if quick else [tokens] * 8, difference)


def _ragged(before_end: int) -> Callable[[Shape, bool], Data]:
    lengths = [64, 16, 23, 30, 37, 44, 51, 58]
    return lambda shape, quick: head_sweep(shape, [4, 9, 6] if quick else lengths, before_end=before_end)


def _positions(shape: Shape, quick: bool) -> Data:
    data = head_sweep(shape, [6] * 2 if quick else [32] * 4)
    length = len(data.clean[0])
    return replace(data, patches=[(layer, place) for layer in range(shape.layers) for place in range(length)])


def _plain(shape: Shape, quick: bool) -> Data:
    return replace(_a(64, difference=True)(shape, quick), patches=[])


def _lens(shape: Shape, quick: bool) -> Data:
    return replace(_a(64)(shape, quick), patches=[], corrupt=[])


def _vectors(shape: Shape, count: int) -> torch.Tensor:
    return torch.randn(count, shape.width, generator=torch.Generator().manual_seed(2))


def _one_edit(shape: Shape, quick: bool) -> Data:
    data = head_sweep(shape, [16])
    return replace(data, patches=[], corrupt=[], vectors=_vectors(shape, 1))


def _together(shape: Shape, quick: bool) -> Data:
    count = 6 if quick else 32
    data = head_sweep(shape, [4 + (5 * row) % 13 for row in range(count)])
    patches = [(row % shape.layers, row) for row in range(count)]
    return replace(data, patches=patches, corrupt=[], vectors=_vectors(shape, count))


def _generation(shape: Shape, quick: bool) -> Data:
    data = head_sweep(shape, [5] * 2 if quick else [16] * 8)
    vector = _vectors(shape, 1)
    return replace(data, patches=[], corrupt=[], vectors=vector, layer=shape.layers // 2, steps=5 if quick else 64)


def _prefixes(shape: Shape, quick: bool) -> Data:
    count, prefix, own = (5, 12, 4) if quick else (64, 200, 8)
    generator = torch.Generator().manual_seed(3)
    (shared,) = _rows(generator, shape.vocabulary, [prefix])
    rows = [shared + row for row in _rows(generator, shape.vocabulary, [own] * count)]
    return Data(
        shape,
        clean=rows,
        answers=torch.randint(1, shape.vocabulary, (count,), generator=generator).tolist(),
        patches=[(row % shape.layers, row) for row in range(count)],
        at=[prefix + row % own for row in range(count)],
        vectors=_vectors(shape, count),
    )


TASKS = {
    task.key: task
    for task in (
        Task("a16", "heads", "every head's z at the last position, log-prob, 8 × 16", _a(16),
             bars={"hooks": 15, "nnsight": 15}, limit=19.8),
        Task("a64", "heads", "every head's z at the last position, log-prob, 8 × 64", _a(64),
             bars={"hooks": 40, "nnsight": 40, "expert": 20}, limit=51.9),
        Task("ragged", "heads", "(a) ragged: 16–64 tokens, each row at its own last position", _ragged(0)),
        Task("inside", "heads", "(a) ragged, at positions up to 14 before the last, another in each row", _ragged(2)),
        Task("b", "heads", "(a) with a two-token logit difference, 8 × 64", _a(64, difference=True),
             bars={"hooks": 58, "nnsight": 58, "expert": 25}, limit=69),
        Task("c", "positions", "every layer × position of resid_post, 4 × 32", _positions,
             bars={"hooks": 4.5, "nnsight": 4.5, "expert": 2.5}, limit=6.5),
        Task("d", "attribution", "attribution: one backward, all sites, 8 × 64", _plain,
             bars={"hooks": 1, "nnsight": 1}),
        Task("e", "lens", "logit lens at all layers, last position, 8 × 64", _lens, bars={"hooks": 1, "nnsight": 1}),
        Task("f", "one_edit", "one edit, 2 layers of 64: one trace of 16 tokens", _one_edit, inner=20,
             models=("tiny",)),
        Task("g", "together", "32 prompts of 4–16 tokens, an edit each", _together, bars={"weft one by one": 2}),
        Task("h", "generation", "64 tokens of 8 prompts, steered at one layer", _generation, bars={"hooks": 1}),
        Task("i", "prefixes", "64 prompts, 200 tokens shared, an edit each in the last 8", _prefixes,
             bars={"hooks": 8, "nnsight": 8}),
    )
}  # fmt: skip
