"""How much memory an experiment takes above the model, and how many rows at a time a budget allows.

    limits = within(budget, card)                     # packed tokens in a pass, rows of logits made at once
    found = estimate(experiment, checked, needed, by_rows, card, limits)
    found.total(64), found.rows(64, budget)           # bytes for 64 rows; rows of a slice

An estimate is made before anything runs, from sizes alone: what the base leaves for all runs (keys, values, sites that
are read or entered at), one pass over the layers, logits, the values that wait for others, and the results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

from weft.errors import LimitError
from weft.ir.card import Card
from weft.ir.check import Checked
from weft.ir.nodes import Const, Experiment, Node, Op, Param, Read, Run, Save, Site, Write, operands
from weft.ir.optable import spec_of
from weft.ir.types import DTYPES
from weft.plan.looks import looked_from

SMALL = 1 << 28
"""Bytes that are there on any machine, without asking."""
SHARE = 0.5
"""Of the memory that is free, what an experiment may plan for where nobody says."""
OF_PASS, OF_LOGITS = 0.2, 0.15
"""Of a budget, what one pass over the layers, and the logits made at once, may take."""
COPIES = 3
"""Logits, and what is made of them, that are there at a time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """`tokens`: packed tokens of a pass; more are done in several. `logits`: rows of whole logits made at once."""

    tokens: int = 8192
    logits: int = 512


DEFAULT = Limits()
LEAST = Limits(64, 8)
"""Passes smaller than this cost more in time than they save in memory."""


def parsed(budget: int | float | str | None) -> int | None:
    """A budget in bytes, from 500_000_000, "500MB" or "2 GiB"; None stays None. LimitError for anything else."""
    if budget is None:
        return None
    if isinstance(budget, str):
        found = re.fullmatch(r"\s*([0-9.]+)\s*([kMGT]?)(i?)B?\s*", budget)
        try:
            number = float(found[1]) if found else 0.0
        except ValueError:
            number = 0.0
        power = " kMGT".index(found[2] or " ") if found else 0
        amount = number * (1024 if found and found[3] else 1000) ** power
    else:
        amount = float(budget)
    if not 1 <= amount < 1 << 62 or isinstance(budget, bool):
        raise LimitError(
            f'memory is a number of bytes above the model, or text such as "500MB" or "2GiB"; not {budget!r}'
        )
    return int(amount)


def bytes_per_token(card: Card) -> int:
    """What one packed token takes in a pass over the layers: the stream, the heads and the neurons, some of them twice.

    A model without heads and neurons (a state space) is taken to be as wide inside as an MLP would be.
    """
    sizes = {"n_heads": 0, "n_kv_heads": 0, "d_head": 0, "d_mlp": 4 * card.sizes.get("d_model", 1), **card.sizes}
    heads = (sizes["n_heads"] + 2 * sizes["n_kv_heads"]) * sizes["d_head"]
    return (8 * sizes["d_model"] + 3 * sizes["d_mlp"] + 2 * heads) * _itemsize(card)


def within(budget: int | None, card: Card) -> Limits:
    """The engine's limits for a budget: at most the usual ones."""
    if budget is None:
        return DEFAULT
    tokens = int(OF_PASS * budget) // bytes_per_token(card)
    logits = int(OF_LOGITS * budget) // (COPIES * card.sizes["d_vocab"] * _itemsize(card))
    return Limits(
        min(max(tokens, LEAST.tokens), DEFAULT.tokens),
        min(max(logits, LEAST.logits), DEFAULT.logits),
    )


def _itemsize(card: Card) -> int:
    return DTYPES[card.dtype].itemsize


@dataclass(frozen=True)
class Amount:
    """Bytes of what goes by rows (for all of them) and of what does not."""

    by_rows: float = 0.0
    fixed: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.by_rows + other.by_rows, self.fixed + other.fixed)


@dataclass(frozen=True)
class Estimate:
    """Peak memory by what takes it. `in_pass` and `logits` are bounded by the engine's limits, not by rows."""

    batch: int
    keys: Amount
    sites: Amount
    values: Amount
    results: Amount
    in_pass: int
    logits: int

    def total(self, rows: int) -> int:
        """Bytes at the peak of running `rows` of the batch's rows."""
        parts = [part for each in fields(self) if isinstance(part := getattr(self, each.name), Amount)]
        share = rows / self.batch
        return int(sum(part.by_rows * share + part.fixed for part in parts)) + self.in_pass + self.logits

    def rows(self, batch: int, budget: int) -> int:
        """The most rows, and at least one, that fit into a budget; slices are then as equal as can be."""
        fit = next((rows for rows in range(batch, 1, -1) if self.total(rows) <= budget), 1)
        return -(-batch // -(-batch // fit))


def at_most(experiment: Experiment, card: Card) -> float:
    """A generous guess that costs next to nothing: distinct prompts in all layers, and what is looked at of every read."""
    sizes, nodes = card.sizes, experiment.nodes
    token = sizes["n_layers"] * (bytes_per_token(card) + 12 * sizes["d_model"] * _itemsize(card))
    shapes: dict[int, tuple[int, int]] = {}
    distinct: dict[object, int] = {}
    every = 0
    for index, node in enumerate(nodes):
        if isinstance(node, Run):
            constant = nodes[node.inputs[0][1].node]
            if not isinstance(constant, Const) or len(constant.data.type.shape) != 2:
                continue
            steps = dict(node.options).get("max_new_tokens")
            batch, pos = constant.data.type.shape
            shapes[index] = batch, pos
            distinct[node.inputs] = batch * (pos + (steps if isinstance(steps, int) else 0))
            every += distinct[node.inputs]
    crude = every * (token + COPIES * card.sizes["d_vocab"] * _itemsize(card))
    if crude <= SMALL:
        return crude
    consumers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for ref in operands(node):
            consumers.setdefault(ref.node, []).append(index)
    total = token * sum(distinct.values()) + bytes_per_token(card) * DEFAULT.tokens
    for index, node in enumerate(nodes):
        if isinstance(node, Read) and node.run in shapes and node.site in card.by_site:
            total += COPIES * _looked_at(nodes, consumers, index, node, shapes[node.run], card)
    return total


def _looked_at(
    nodes: tuple[Node, ...], consumers: dict[int, list[int]], index: int, read: Read, shape: tuple[int, int], card: Card
) -> float:
    """Bytes of what is looked at of a site."""
    batch, pos = shape
    nbytes = card.by_site[read.site][1].type(batch, pos, pos).nbytes
    if read.site.name != "logits" or read.step is not None:
        return nbytes
    least = looked_from(nodes, consumers, index, batch, pos)
    return nbytes / (batch * pos) * sum(pos - first for first in least)


def estimate(
    experiment: Experiment,
    checked: Checked,
    needed: Iterable[int],
    by_rows: Callable[[int], bool],
    card: Card,
    limits: Limits,
    batch: int,
) -> Estimate:
    """The memory of the `needed` nodes; `by_rows` says of a node whether its values go by the rows of `batch`."""
    nodes = experiment.nodes
    kept = [index for index in needed if index < len(nodes)]
    found = _Sizes(experiment, checked, kept, by_rows, card)
    tokens, rows = found.tokens()
    reads = [node for index in kept if isinstance(node := nodes[index], Read)]
    logits = sum(
        checked.types[i][0].nbytes for i in kept if isinstance(n := nodes[i], Read) and n.site.name == "logits"
    )
    most = limits.logits * card.sizes["d_vocab"] * _itemsize(card)
    return Estimate(
        batch,
        found.keys(rows),
        found.sites(rows),
        found.values(),
        found.results(),
        min(limits.tokens, tokens) * bytes_per_token(card) if reads else 0,
        COPIES * min(most, logits),
    )


class _Sizes:
    """Adds up what the nodes of an experiment keep."""

    def __init__(
        self, experiment: Experiment, checked: Checked, kept: list[int], by_rows: Callable[[int], bool], card: Card
    ) -> None:
        self.nodes, self.checked, self.kept, self.by_rows, self.card = experiment.nodes, checked, kept, by_rows, card
        self.runs = [index for index in kept if isinstance(self.nodes[index], Run)]

    def _split(self, sized: Iterable[tuple[int, float]]) -> Amount:
        total = Amount()
        for index, nbytes in sized:
            total += Amount(nbytes, 0.0) if self.by_rows(index) else Amount(0.0, nbytes)
        return total

    def tokens(self) -> tuple[int, Amount]:
        """Tokens of all runs together, and of the distinct ones."""
        distinct: dict[object, tuple[int, int]] = {}
        every = 0
        for index in self.runs:
            node, info = self.nodes[index], self.checked.runs[index]
            assert isinstance(node, Run)
            size = info.batch * (info.pos + max(info.steps - 1, 0))
            every += size
            distinct[node.inputs[0][1]] = index, size
        return every, self._split(distinct.values())

    def keys(self, tokens: Amount) -> Amount:
        """Keys and values of the base rows, which stay while other runs attend to them."""
        if len(self.runs) < 2:
            return Amount()
        sizes = self.card.sizes
        each = 2 * sizes["n_layers"] * sizes["n_kv_heads"] * sizes["d_head"] * _itemsize(self.card)
        return Amount(tokens.by_rows * each, tokens.fixed * each)

    def sites(self, tokens: Amount) -> Amount:
        """Sites that are read, and streams at which edited runs enter, of all base rows; squares of each run's own."""
        each = 0.0
        seen: set[Site] = set()
        entered: set[int | None] = set()
        squares: list[tuple[int, float]] = []
        for index in self.kept:
            node = self.nodes[index]
            if isinstance(node, Write):
                entered.add(self._root(node).site.layer)
            if not isinstance(node, Read):
                continue
            info, nbytes = self.checked.runs[node.run], self.checked.types[index][0].nbytes
            per_token = nbytes / (info.batch * info.pos)
            if node.site.name in ("scores", "pattern"):
                squares.append((index, nbytes))
            elif node.site not in seen and node.site.name != "logits":
                seen.add(node.site)
                each += per_token
        each += (len(entered) + 1) * self.card.sizes["d_model"] * _itemsize(self.card)
        return Amount(tokens.by_rows * each, tokens.fixed * each) + self._split(squares)

    def _root(self, node: Write) -> Read:
        found = self.nodes[node.prev.node]
        while isinstance(found, Write):
            found = self.nodes[found.prev.node]
        assert isinstance(found, Read)
        return found

    def values(self) -> Amount:
        """Values that wait for another run, or for an edit; of those used at once, the largest and what it is made of."""
        alone = self._alone()
        waiting: dict[int, float] = {}
        largest: tuple[int, float] = (0, 0.0)
        for index in self.kept:
            node = self.nodes[index]
            for ref in operands(node):
                if alone.get(ref.node) != alone.get(index) or isinstance(node, Write | Save):
                    waiting[ref.node] = self._nbytes(ref.node)
            largest = max(largest, (index, 2 * self._nbytes(index)), key=lambda pair: pair[1])
        return self._split(waiting.items()) + self._split([largest] if largest[1] else [])

    def _alone(self) -> dict[int, int]:
        """The one run that a node depends on; -1 where there are several."""
        found: dict[int, int] = {}
        for index in sorted(self.kept):
            node = self.nodes[index]
            if isinstance(node, Read):
                found[index] = node.run
                continue
            of = {found[ref.node] for ref in operands(node) if ref.node in found}
            if of:
                found[index] = of.pop() if len(of) == 1 else -1
        return found

    def _nbytes(self, index: int) -> float:
        node = self.nodes[index]
        views = isinstance(node, Op) and spec_of(node.name).alias == "view"
        if views or isinstance(node, Read | Run | Const | Param | Save | Write):
            return 0.0
        return float(sum(each.nbytes for each in self.checked.types[index]))

    def results(self) -> Amount:
        """What is saved: a slice's part, and all of it, where the parts are put together."""
        sized = [
            (node.value.node, float(self.checked.types[node.value.node][node.value.out].nbytes))
            for index in self.kept
            if isinstance(node := self.nodes[index], Save)
        ]
        parts = self._split(sized)
        return parts + Amount(0.0, parts.by_rows)


__all__ = ["DEFAULT", "SMALL", "Estimate", "Limits", "at_most", "estimate", "parsed", "within"]
