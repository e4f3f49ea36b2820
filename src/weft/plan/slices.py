"""The same experiment on some of its rows.

found = rowwise(experiment, checked, order_of, batch=64)
rows_of(found, 8, 16)             # a Part: the program that gives the frontier for rows 8 to 15
"""

from __future__ import annotations

import struct

from weft.ir.constant import BytesConstant
from weft.ir.nodes import Apply, Const, ConstantData, Node, Op, Param, Read, Ref, Run, Save, Update, Write
from weft.ir.optable.follow import Followed
from weft.ir.optable.rows import Lie
from weft.ir.types import DTYPES, TensorType
from weft.plan.parts import Part, Writer, copied, mapped, ordered
from weft.plan.rowwise import FIXED, Changed, Rowwise

CUT_AT_ONCE = 1 << 20
"""Constants of whole numbers up to this many bytes are cut here, where plans can see them; others by an op."""


def rows_of(found: Rowwise, first: int, last: int) -> Part:
    """The program for rows `first` to `last`; it saves each value of the frontier under `name_of` it."""
    return _Slicer(found, first, last).made()


def name_of(ref: Ref) -> str:
    return f"{ref.node}.{ref.out}"


class _Slicer(Writer):
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
            return copied(node, self.ref, self)
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
