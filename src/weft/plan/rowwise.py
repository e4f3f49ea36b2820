"""Which values of an experiment are row by row, so that a program of some of its rows can be made (`weft.plan.slices`).

    found = rowwise(experiment, checked, order_of, batch=64)
    found.frontier                    # values that are wanted of all rows: saved, or used where rows mix

A value is FIXED (it depends on no run of `batch` rows), in ROWS (slice i of it is what slice i of the runs gives: its
`Lie` says where), or MIXED. Runs of one batch belong together row by row; what flows between them from row to row
keeps that, anything else waits for all rows and is computed afterwards, with the frontier as constants (`part`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

from weft.ir.card import Dim
from weft.ir.causality import OrderOf
from weft.ir.check import Checked
from weft.ir.nodes import (
    Apply,
    Const,
    ConstantData,
    Experiment,
    Grad,
    Node,
    Op,
    Param,
    Read,
    Ref,
    Run,
    Save,
    Update,
    ViewStep,
    Write,
    arg_refs,
    operands,
)
from weft.ir.optable import spec_of
from weft.ir.optable.follow import Followed, follow, through
from weft.ir.optable.rows import Lie
from weft.ir.types import TensorType
from weft.plan.parts import graph_of, ordered, values_of

FIXED, ROWS, MIXED = 0, 1, 2

Lies = tuple[Lie | None, ...]


class Changed(NamedTuple):
    """How a Write or Update is made on some of the rows: its view, and where its base and value must be cut."""

    view: tuple[ViewStep, ...]
    base: Lie | None = None
    value: Lie | None = None


@dataclass
class Rowwise:
    """Each needed node's state, where the rows of its outputs lie, and how it is made on some of them.

    `early` are fixed values that other runs or what came of them decide: to be there before any slice is run.
    """

    experiment: Experiment
    types: Sequence[tuple[TensorType, ...]]
    needs: Callable[[int], list[int]]
    batch: int
    state: dict[int, int] = field(default_factory=dict[int, int])
    lies: dict[int, Lies] = field(default_factory=dict[int, Lies])
    how: dict[int, Followed | Changed] = field(default_factory=dict[int, Followed | Changed])
    live: set[int] = field(default_factory=set[int])

    def lie(self, ref: Ref) -> Lie | None:
        return self.lies[ref.node][ref.out] if self.state[ref.node] == ROWS else None

    def goes_by_rows(self, index: int) -> bool:
        return self.state[index] == ROWS

    @cached_property
    def frontier(self) -> dict[Ref, Lie | None]:
        """The values in rows that are saved, or that something needs which is not: where their rows lie."""
        found: dict[Ref, Lie | None] = {}
        for index, node in enumerate(self.experiment.nodes):
            if self.state.get(index) == MIXED or (isinstance(node, Save) and self.state.get(index) == ROWS):
                for ref in values_of(node):
                    if self.state[ref.node] == ROWS:
                        found[ref] = self.lie(ref)
        return found

    @cached_property
    def early(self) -> tuple[Ref, ...]:
        nodes = self.experiment.nodes
        found: dict[Ref, None] = {}
        for index, node in enumerate(nodes):
            if self.state.get(index) == ROWS:
                found.update(dict.fromkeys(ref for ref in operands(node) if self._comes_early(ref.node)))
        return tuple(found)

    def _comes_early(self, index: int) -> bool:
        return self.state[index] == FIXED and index in self.live and not isinstance(self.experiment.nodes[index], Const)

    @property
    def runs(self) -> int:
        """How many runs go by rows."""
        nodes = self.experiment.nodes
        return sum(isinstance(node, Run) and self.state.get(index) == ROWS for index, node in enumerate(nodes))


def rowwise(
    experiment: Experiment,
    checked: Checked,
    order_of: OrderOf,
    batch: int,
    made: Callable[[ConstantData], bool] = lambda data: False,
) -> Rowwise:
    """Follow the rows of all runs of `batch` rows through an experiment. `made` tells constants that runs gave."""
    needs = graph_of(experiment.nodes, order_of)
    found = Rowwise(experiment, checked.types, needs, batch)
    _Tracker(found, checked, made).follow()
    return found


class _Tracker:
    """Takes the nodes in the order of need, each when all it needs is known."""

    def __init__(self, found: Rowwise, checked: Checked, made: Callable[[ConstantData], bool]) -> None:
        self.found, self.checked, self.made = found, checked, made
        self.nodes = found.experiment.nodes
        self.state, self.lies, self.how, self.live = found.state, found.lies, found.how, found.live
        saves = [index for index, node in enumerate(self.nodes) if isinstance(node, Save)]
        self.order = ordered(found.needs, saves)
        grads = [node.of.node for i in self.order if i < len(self.nodes) and isinstance(node := self.nodes[i], Grad)]
        self.graded = set(ordered(found.needs, grads))
        self.counts: dict[Ref, bool] = {}

    def follow(self) -> None:
        for index in self.order:
            needed = self.found.needs(index)
            worst = max((self.state[need] for need in needed), default=FIXED)
            if any(need in self.live for need in needed):
                self.live.add(index)
            if index >= len(self.nodes):
                self.state[index], self.lies[index] = worst, ()
                continue
            how = self._take(index, self.nodes[index], worst)
            graded = index in self.graded and (how == ROWS or index in self.live)
            self.state[index] = MIXED if graded else how
            self.lies.setdefault(index, (None,) * len(self.found.types[index]))

    def _take(self, index: int, node: Node, worst: int) -> int:
        """A node's state; notes where its rows lie, and how it is made on some of them."""
        match node:
            case Run(kind=kind):
                return ROWS if kind == "tokens" and self.checked.runs[index].batch == self.found.batch else FIXED
            case Read():
                return self._read(index, node, worst)
            case Const(data):
                if self.made(data):
                    self.live.add(index)
                return FIXED
            case Write() | Update() | Op() | Apply() | Save() if worst != ROWS:
                return worst
            case Write(prev, view, value):
                return self._written(index, prev, view, value)
            case Update(base, view, value):
                return self._updated(index, base, view, value)
            case Op():
                return self._op(index, node)
            case Apply(arg=ref):
                lie = self.found.lie(ref)
                self.lies[index] = (lie,)
                return MIXED if lie is not None and lie.dim == len(self._type(ref).shape) - 1 else ROWS
            case Save() | Param():
                return worst
            case _:
                return MIXED

    def _type(self, ref: Ref) -> TensorType:
        return self.found.types[ref.node][ref.out]

    def _read(self, index: int, node: Read, worst: int) -> int:
        info = self.checked.runs[node.run]
        if self.state[node.run] != ROWS:
            self.live.add(index)
            return FIXED if worst == FIXED else MIXED
        dims = info.card.by_site[node.site][1].dims
        places = [(at, dim) for at, dim in enumerate(dims) if dim.batch or dim.batch_pos]
        padded = len(cast("Run", self.nodes[node.run]).inputs) > 1
        if worst == MIXED or len(places) != 1 or places[0][1] not in (Dim(batch=1), Dim(batch_pos=1)):
            return MIXED
        at, dim = places[0]
        if dim.batch_pos and padded:
            return MIXED
        self.lies[index] = (Lie(at, info.pos if dim.batch_pos else 1),)
        return ROWS

    def _written(self, index: int, prev: Ref, view: tuple[ViewStep, ...], value: Ref) -> int:
        lie, given = self.found.lie(prev), self.found.lie(value)
        found = through(view, self._type(prev), lie, self.found.batch) if lie is not None else None
        if found is None or (given is not None and given != found[0]):
            return MIXED
        self.how[index] = Changed(found[1], None, found[0] if given is None else None)
        self.lies[index] = (lie,)
        return ROWS

    def _updated(self, index: int, base: Ref, view: tuple[ViewStep, ...], value: Ref) -> int:
        if self.found.lie(base) is not None:
            return self._written(index, base, view, value)
        given, whole, batch = self.found.lie(value), self._type(base), self.found.batch
        if given is None:
            self.how[index] = Changed(view)
            return ROWS
        for dim, length in enumerate(whole.shape):
            if length and length % batch == 0:
                lie = Lie(dim, length // batch)
                found = through(view, whole, lie, batch)
                if found is not None and found[0] == given:
                    self.how[index] = Changed(found[1], lie)
                    self.lies[index] = (lie,)
                    return ROWS
        return MIXED

    def _op(self, index: int, node: Op) -> int:
        refs = list(arg_refs(node.args))
        lies = [self.found.lie(ref) for ref in refs]
        if not any(lie is not None for lie in lies):
            self.how[index] = Followed((None,) * len(self.found.types[index]))
            return ROWS
        args = cast("tuple[Any, ...]", self._with_types(node.args))

        def counts(number: int) -> int | None:
            return self._counts(refs[number])

        found = follow(spec_of(node.name), args, lies, self.found.batch, self.found.types[index], counts)
        if found is None:
            return MIXED
        self.how[index], self.lies[index] = found, found.outputs
        return ROWS

    def _with_types(self, arg: object) -> object:
        if isinstance(arg, Ref):
            return self._type(arg)
        return tuple(self._with_types(item) for item in cast("tuple[object, ...]", arg)) if type(arg) is tuple else arg

    def _counts(self, ref: Ref) -> int | None:
        """The dimension along which a constant counts the rows; None if it does not."""
        shape = self._type(ref).shape
        long = [at for at, length in enumerate(shape) if length != 1]
        if len(long) != 1 or shape[long[0]] != self.found.batch:
            return None
        if ref not in self.counts:
            self.counts[ref] = self._is_range(ref)
        return long[0] if self.counts[ref] else None

    def _is_range(self, ref: Ref) -> bool:
        node = self.nodes[ref.node]
        while isinstance(node, Op) and node.name in ("unsqueeze", "view", "reshape", "alias"):
            node = self.nodes[cast("Ref", node.args[0]).node]
        if not isinstance(node, Const) or node.data.type.dtype != "int64" or node.data.type.numel != self.found.batch:
            return False
        return struct.unpack(f"<{self.found.batch}q", node.data.tobytes()) == tuple(range(self.found.batch))
