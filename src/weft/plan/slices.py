"""An experiment on some of its rows: which values are row by row, and the same program for rows a to b.

    found = rowwise(experiment, checked, order_of, batch=64)
    found.frontier                    # values that are wanted of all rows: saved, or used where rows mix
    found.rows(8, 16)                 # a Part: the program that gives the frontier for rows 8 to 15

A value is FIXED (it depends on no run of `batch` rows), in ROWS (slice i of it is what slice i of the runs gives: its
`Lie` says where), or MIXED. Runs of one batch belong together row by row; what flows between them from row to row
keeps that, anything else waits for all rows and is computed afterwards, with the frontier as constants (`part`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, cast

from weft.ir.card import Dim
from weft.ir.causality import Dependencies, OrderOf
from weft.ir.check import Checked
from weft.ir.constant import BytesConstant
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
from weft.ir.types import DTYPES, TensorType

FIXED, ROWS, MIXED = 0, 1, 2

Lies = tuple[Lie | None, ...]
CUT_AT_ONCE = 1 << 20
"""Constants of whole numbers up to this many bytes are cut here, where plans can see them; others by an op."""


class Part(NamedTuple):
    """A program made of another, and for each of its nodes the one that it came from."""

    experiment: Experiment
    origin: tuple[int, ...]


class Changed(NamedTuple):
    """How a Write or Update is made on some of the rows: its view, and where its base and value must be cut."""

    view: tuple[ViewStep, ...]
    base: Lie | None = None
    value: Lie | None = None


def graph_of(nodes: Sequence[Node], order_of: OrderOf) -> Callable[[int], list[int]]:
    """What each node needs: its operands, and of a read its run and (by way of links) the edits before it."""
    graph = Dependencies(nodes, order_of)

    def needs(index: int) -> list[int]:
        found = graph.needs(index)
        node = nodes[index] if index < len(nodes) else None
        return [node.run, *found] if isinstance(node, Read) else found

    return needs


def ordered(needs: Callable[[int], list[int]], roots: Iterable[int]) -> list[int]:
    """Everything that `roots` need, what is needed first before what needs it."""
    done: dict[int, None] = {}
    for root in roots:
        stack = [(root, False)]
        while stack:
            index, seen = stack.pop()
            if seen:
                done[index] = None
            elif index not in done:
                stack.append((index, True))
                stack.extend((need, False) for need in needs(index) if need not in done)
    return list(done)


# -- which values are row by row ----------------------------------------------------------------------------------------


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

    def rows(self, first: int, last: int) -> Part:
        """The program for those rows; it saves each value of the frontier under `name_of` it."""
        return _Slicer(self, first, last).made()


def values_of(node: Node) -> list[Ref]:
    """The operands that a node needs the numbers of (a write's `prev` is a place in the model)."""
    return [node.value] if isinstance(node, Write) else list(operands(node))


def name_of(ref: Ref) -> str:
    return f"{ref.node}.{ref.out}"


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


# -- programs made of a program -----------------------------------------------------------------------------------------


class _Writer:
    """A program being written: where each old node's new one is."""

    def __init__(self, experiment: Experiment) -> None:
        self.old = experiment
        self.nodes: list[Node] = []
        self.origin: list[int] = []
        self.at: dict[int, int] = {}

    def add(self, node: Node, origin: int) -> Ref:
        self.nodes.append(node)
        self.origin.append(origin)
        return Ref(len(self.nodes) - 1)

    def ref(self, ref: Ref) -> Ref:
        return Ref(self.at[ref.node], ref.out)

    def part(self) -> Part:
        places = tuple(self.old.where(index) for index in self.origin) if self.old.locations else ()
        return Part(Experiment(tuple(self.nodes), places), tuple(self.origin))


def mapped(arg: object, change: Callable[[Ref], Ref]) -> Any:
    """An argument with other operands, in order."""
    if isinstance(arg, Ref):
        return change(arg)
    return tuple(mapped(item, change) for item in cast("tuple[object, ...]", arg)) if type(arg) is tuple else arg


def part(
    experiment: Experiment,
    order_of: OrderOf,
    wanted: Mapping[str, Ref],
    known: Mapping[Ref, ConstantData] | None = None,
) -> Part:
    """The program that gives the `wanted` values by name, those `known` already standing in it as constants."""
    nodes, held = experiment.nodes, known or {}
    needs = graph_of(nodes, order_of)

    def open_needs(index: int) -> list[int]:
        node = nodes[index] if index < len(nodes) else None
        if node is None or isinstance(node, Read):
            return needs(index)
        places = [node.prev.node] if isinstance(node, Write) else []
        return places + [ref.node for ref in values_of(node) if ref not in held]

    kept = {i for i in ordered(open_needs, [r.node for r in wanted.values() if r not in held]) if i < len(nodes)}
    writer = _Writer(experiment)
    constants: dict[Ref, Ref] = {}

    def value(ref: Ref, origin: int) -> Ref:
        if ref not in held:
            return writer.ref(ref)
        if ref not in constants:
            constants[ref] = writer.add(Const(held[ref]), origin)
        return constants[ref]

    for index in sorted(kept):
        node = _copied(nodes[index], lambda ref, index=index: value(ref, index), writer)
        writer.at[index] = writer.add(node, index).node
    for name, ref in wanted.items():
        writer.add(Save(name, value(ref, ref.node)), ref.node)
    return writer.part()


def _copied(node: Node, value: Callable[[Ref], Ref], writer: _Writer) -> Node:
    match node:
        case Run(kind, inputs, options):
            return Run(kind, tuple((name, value(ref)) for name, ref in inputs), options)
        case Read(run, site, step):
            return Read(writer.at[run], site, step)
        case Write(prev, view, new):
            return Write(writer.ref(prev), view, value(new))
        case Update(base, view, new, layout, nograd):
            return Update(value(base), view, value(new), layout, nograd)
        case Op(name, args, nograd):
            return Op(name, mapped(args, value), nograd)
        case Apply(name, ref):
            return Apply(name, value(ref))
        case Grad(of, wrt):
            return Grad(value(of), tuple(value(ref) for ref in wrt))
        case Const() | Param():
            return node
        case _:
            raise TypeError(f"a node of kind {type(node).__name__} has no part in a slice")


class _Slicer(_Writer):
    """The program of rows `first` to `last`."""

    def __init__(self, found: Rowwise, first: int, last: int) -> None:
        super().__init__(found.experiment)
        self.found, self.first, self.last = found, first, last
        self.cuts: dict[tuple[Ref, Lie], Ref] = {}
        self.numbers: dict[Ref, Ref] = {}

    def made(self) -> Part:
        found, nodes = self.found, self.old.nodes
        wanted = ordered(found.needs, [ref.node for ref in found.frontier])
        for index in sorted(index for index in wanted if index < len(nodes)):
            if not isinstance(nodes[index], Const | Param):
                self.at[index] = self.add(self._sliced(index, nodes[index]), index).node
        for ref in found.frontier:
            self.add(Save(name_of(ref), self.ref(ref)), ref.node)
        return self.part()

    def ref(self, ref: Ref) -> Ref:
        node = self.old.nodes[ref.node]
        if ref.node not in self.at and isinstance(node, Const | Param):  # only where it is wanted uncut
            self.at[ref.node] = self.add(node, ref.node).node
        return super().ref(ref)

    def _sliced(self, index: int, node: Node) -> Node:
        if self.found.state[index] == FIXED or isinstance(node, Read | Apply):
            return _copied(node, self.ref, self)
        how = self.found.how.get(index)
        match node:
            case Run(kind, inputs, options):
                return Run(kind, tuple((name, self._cut(ref, Lie(0), index)) for name, ref in inputs), options)
            case Write(prev, _, value) if isinstance(how, Changed):
                return Write(self.ref(prev), how.view, self._cut(value, how.value, index))
            case Update(base, _, value, layout, nograd) if isinstance(how, Changed):
                new = self._cut(value, how.value, index)
                return Update(self._cut(base, how.base, index), how.view, new, layout, nograd)
            case Op(name, args, nograd) if isinstance(how, Followed):
                numbers = iter(range(len(self.old.nodes)))
                new = mapped(args, lambda ref: self._operand(ref, next(numbers), how, index))
                return Op(*how.op(name, new), nograd)
            case _:
                raise TypeError(f"a node of kind {type(node).__name__} is not made by rows")

    def _operand(self, ref: Ref, number: int, how: Followed, index: int) -> Ref:
        if number in how.renumbered:
            return self._numbered(ref, index)
        return self._cut(ref, how.cuts.get(number), index)

    def _numbered(self, ref: Ref, index: int) -> Ref:
        """0, 1, … for the rows of this slice, in the shape that the whole count has."""
        if ref not in self.numbers:
            count = self.last - self.first
            shape = tuple(1 if n == 1 else count for n in self.found.types[ref.node][ref.out].shape)
            data = BytesConstant(TensorType("int64", shape), struct.pack(f"<{count}q", *range(count)))
            self.numbers[ref] = self.add(Const(data), index)
        return self.numbers[ref]

    def _cut(self, ref: Ref, lie: Lie | None, index: int) -> Ref:
        """The slice's part of a value that has all rows; the value itself where there is nothing to cut."""
        if lie is None:
            return self.ref(ref)
        if (ref, lie) not in self.cuts:
            node = self.old.nodes[ref.node]
            if isinstance(node, Const) and node.data.type.dtype == "int64" and node.data.type.nbytes <= CUT_AT_ONCE:
                new: Node = Const(cut(node.data, lie, self.first, self.last))
            else:
                new = Op("slice.Tensor", (self.ref(ref), lie.dim, self.first * lie.inner, self.last * lie.inner))
            self.cuts[ref, lie] = self.add(new, index)
        return self.cuts[ref, lie]


def cut(data: ConstantData, lie: Lie, first: int, last: int) -> BytesConstant:
    """Rows `first` to `last` of a constant."""
    shape, raw = data.type.shape, memoryview(data.tobytes())
    inside = DTYPES[data.type.dtype].itemsize
    for length in shape[lie.dim + 1 :]:
        inside *= length
    step = shape[lie.dim] * inside
    low, high = first * lie.inner * inside, last * lie.inner * inside
    found = b"".join(raw[at + low : at + high] for at in range(0, len(raw), step))
    new = shape[: lie.dim] + ((last - first) * lie.inner,) + shape[lie.dim + 1 :]
    return BytesConstant(TensorType(data.type.dtype, new), found)
