"""Where rows go through one op: what its outputs' row axes are, and what must change for it to run on some of the rows.

    follow(spec, (float32[8, 5, 4], (40, 4)), (Lie(0),), batch=8, outputs=(float32[40, 4],))
        → Followed(outputs=(Lie(0, 5),), changed={1: (-1, 4)}, …)      view to [40, 4]: on 3 rows, to [-1, 4]

None means that the op mixes rows, or that nobody knows: it waits for all of them. Operands without rows of their own
(weights, the user's constants) may have to be cut to match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.errors import WeftError
from weft.ir.nodes import ViewStep
from weft.ir.optable.indexing import indexed
from weft.ir.optable.rows import Lie
from weft.ir.optable.shapes import wrap
from weft.ir.optable.spec import OpSpec, infer, spec_of, tensors
from weft.ir.types import TensorType

RowNumbers = Callable[[int], int | None]
"""Of operand number n: the dimension along which it counts the rows, 0 to batch - 1; None if it does not."""

MARK = 1_000_003
"""A length that no other dimension has: where it comes out of a shape rule, there the rows are."""


@dataclass(frozen=True, slots=True)
class Followed:
    """`outputs`: each output's rows (None: the same for any rows). `cuts`: operands, by number, to be cut along their
    dimension. `changed`: arguments by position, rows' lengths written as -1. `renumbered`: operands that count rows.
    `name`: the op to be used instead, with `changed` as all its arguments after the first."""

    outputs: tuple[Lie | None, ...]
    cuts: Mapping[int, Lie] = field(default_factory=dict[int, Lie])
    changed: Mapping[int, Any] = field(default_factory=dict[int, Any])
    renumbered: frozenset[int] = frozenset()
    name: str = ""

    def op(self, name: str, args: tuple[Any, ...]) -> tuple[str, tuple[Any, ...]]:
        """The op and its arguments as they are on some of the rows (operands uncut)."""
        if self.name:
            return self.name, (args[0], *self.changed.values())
        return name, tuple(self.changed.get(at, arg) for at, arg in enumerate(args))


@dataclass(frozen=True, slots=True)
class Call:
    """An op with its arguments (operands as types), the operands in order, their rows, and what comes out."""

    spec: OpSpec
    bound: tuple[Any, ...]
    given: list[TensorType]
    lies: Sequence[Lie | None]
    batch: int
    outputs: tuple[TensorType, ...]
    row_numbers: RowNumbers

    def arg(self, name: str) -> Any:
        return self.bound[self.spec.place(name)]

    def only_first(self) -> Lie | None:
        """The first operand's rows, where no other operand has any."""
        return self.lies[0] if all(lie is None for lie in self.lies[1:]) else None


def follow(
    spec: OpSpec,
    args: tuple[Any, ...],
    lies: Sequence[Lie | None],
    batch: int,
    outputs: tuple[TensorType, ...],
    row_numbers: RowNumbers = lambda number: None,
) -> Followed | None:
    """What becomes of the rows that lie so in the operands of an op, `args` with types in the operands' places."""
    rule = RULES.get(spec.rows.kind)
    if rule is None:
        return None
    bound = spec.bind(args)
    try:
        found = rule(Call(spec, bound, tensors(bound), lies, batch, outputs, row_numbers))
    except WeftError:  # a shape rule that does not take the marked shape
        return None
    return found if found is not None and _fits(found, outputs, batch) else None


def _fits(found: Followed, outputs: tuple[TensorType, ...], batch: int) -> bool:
    """A rule that is not right must not go unnoticed: each output has its rows where the rule says."""
    return len(found.outputs) == len(outputs) and all(
        lie is None or (0 <= lie.dim < len(out.shape) and out.shape[lie.dim] == batch * lie.inner)
        for lie, out in zip(found.outputs, outputs, strict=True)
    )


def through(
    steps: tuple[ViewStep, ...], whole: TensorType, lie: Lie, batch: int
) -> tuple[Lie, tuple[ViewStep, ...]] | None:
    """Where the rows are after a chain of views, and the chain for some of the rows; None where it mixes them."""
    changed: list[ViewStep] = []
    for step in steps:
        spec = spec_of(step.op)
        outputs = infer(step.op, (whole, *step.args))
        found = follow(spec, (whole, *step.args), (lie,), batch, outputs)
        if found is None or len(outputs) != 1 or found.outputs[0] is None:
            return None
        name, args = found.op(step.op, (None, *step.args))
        changed.append(ViewStep(name, args[1:]))
        whole, lie = outputs[0], found.outputs[0]
    return lie, tuple(changed)


# -- operands that line up ----------------------------------------------------------------------------------------------


def _aligned(c: Call, used: Sequence[int]) -> tuple[int, int, dict[int, Lie]] | None:
    """Where the rows are, counted from the right among the dimensions not used up, how many neighbours belong to each,
    and what must be cut to match; None where operands disagree."""
    places = {
        (lie.dim - len(x.shape) + gone, lie.inner)
        for x, lie, gone in zip(c.given, c.lies, used, strict=True)
        if lie is not None
    }
    if len(places) != 1:
        return None
    place, inner = places.pop()
    if place >= 0:
        return None
    cuts: dict[int, Lie] = {}
    for number, (x, lie, gone) in enumerate(zip(c.given, c.lies, used, strict=True)):
        at = len(x.shape) - gone + place
        if lie is None and at >= 0 and x.shape[at] != 1:
            if x.shape[at] != c.batch * inner:
                return None
            cuts[number] = Lie(at, inner)
    return place, inner, cuts


def _pointwise(c: Call) -> Followed | None:
    found = _aligned(c, [0] * len(c.given))
    if found is None:
        return None
    place, inner, cuts = found
    return Followed(tuple(Lie(len(out.shape) + place, inner) for out in c.outputs), cuts)


def _leading(c: Call) -> Followed | None:
    operands = [at for at, param in enumerate(c.spec.params) if param.kind.startswith("tensor")]
    used = [
        len(c.arg(gone)) if isinstance(gone, str) else gone
        for at, gone in zip(operands, c.spec.rows.dims, strict=False)
        if c.bound[at] is not None
    ]
    return None if len(used) != len(c.given) else _before(c, used)


def _before(c: Call, used: Sequence[int]) -> Followed | None:
    found = _aligned(c, used)
    if found is None:
        return None
    place, inner, cuts = found
    lead = max(len(x.shape) - gone for x, gone in zip(c.given, used, strict=True))
    return Followed((Lie(lead + place, inner),) * len(c.outputs), cuts)


def _unreduced(c: Call) -> Followed | None:
    return _pointwise(c) if c.arg("reduction") == 0 else None


def _classes(c: Call) -> Followed | None:
    """A loss whose classes are dimension 1: an operand's other dimensions are the output's."""
    x, target = c.given[0], c.given[1]
    if c.arg("reduction") != 0 or len(x.shape) < 2 or any(lie is not None for lie in c.lies[2:]):
        return None
    spread = [0, *([1] if target.shape == x.shape else [])]  # operands with a dimension of classes
    outer = {
        Lie(lie.dim - (number in spread and lie.dim > 1), lie.inner)
        for number, lie in enumerate(c.lies)
        if lie is not None and not (number in spread and lie.dim == 1)
    }
    if len(outer) != 1 or any(lie is not None and lie.dim == 1 and n in spread for n, lie in enumerate(c.lies)):
        return None
    out = outer.pop()
    cuts = {
        number: Lie(out.dim + (number in spread and out.dim > 0), out.inner)
        for number in (0, 1)
        if c.lies[number] is None
    }
    return Followed((out,), cuts)


def _similarity(c: Call) -> Followed | None:
    """As pointwise, and then one dimension is gone."""
    found = _aligned(c, [0] * len(c.given))
    if found is None:
        return None
    place, inner, cuts = found
    length = max(len(x.shape) for x in c.given)
    at, gone = length + place, wrap(c.arg("dim"), length)
    return None if at == gone else Followed((Lie(at - (at > gone), inner),), cuts)


def _matmul(c: Call) -> Followed | None:
    (a, b), (left, right), out = c.given, c.lies, c.outputs[0]
    if left is not None and right is None and len(a.shape) > 1 and left.dim == len(a.shape) - 2:
        return Followed((Lie(len(out.shape) - (2 if len(b.shape) > 1 else 1), left.inner),))
    if right is not None and left is None and len(b.shape) > 1 and right.dim == len(b.shape) - 1:
        return Followed((Lie(len(out.shape) - 1, right.inner),))
    return _before(c, [min(2, len(x.shape)) for x in (a, b)])


def _einsum(c: Call) -> Followed | None:
    text = c.arg("equation").replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = [_labels(term, len(x.shape)) for term, x in zip(left.split(","), c.given, strict=True)]
    if arrow:
        out = _labels(right, len(c.outputs[0].shape))
    else:
        dots = max((term for term in terms), key=lambda term: sum(isinstance(each, int) for each in term))
        letters = [each for term in terms for each in term if isinstance(each, str)]
        out = [each for each in dots if isinstance(each, int)]
        out += sorted({each for each in letters if letters.count(each) == 1})
    found = {(term[lie.dim], lie.inner) for term, lie in zip(terms, c.lies, strict=True) if lie is not None}
    if len(found) != 1:
        return None
    label, inner = found.pop()
    if out.count(label) != 1 or any(term.count(label) > 1 for term in terms):
        return None
    cuts = {
        number: Lie(term.index(label), inner)
        for number, (term, x, lie) in enumerate(zip(terms, c.given, c.lies, strict=True))
        if lie is None and label in term and x.shape[term.index(label)] != 1
    }
    return Followed((Lie(out.index(label), inner),), cuts)


def _labels(term: str, ndim: int) -> list[str | int]:
    """A name for each dimension: its letter, or within the ellipsis its place from the right."""
    before, dots, after = term.partition("...")
    extra = ndim - len(before) - len(after)
    return [*before, *(range(-extra, 0) if dots else ()), *after]


# -- one operand --------------------------------------------------------------------------------------------------------


def _traced(c: Call) -> Followed | None:
    lie = c.only_first()
    if lie is None or MARK in c.given[0].shape:
        return None
    marked = c.spec.rule(*_with_first(c, _mark(c.given[0], lie.dim)))
    shapes = [marked] if isinstance(marked, TensorType) else list(marked)
    outs: list[Lie | None] = []
    for shape, out in zip(shapes, c.outputs, strict=False):
        at = shape.shape.index(MARK) if shape.shape.count(MARK) == 1 else -1
        if at < 0 or len(shape.shape) != len(out.shape):
            return None
        if any(a != b for place, (a, b) in enumerate(zip(shape.shape, out.shape, strict=True)) if place != at):
            return None
        outs.append(Lie(at, lie.inner))
    return Followed(tuple(outs)) if len(shapes) == len(c.outputs) else None


def _mark(x: TensorType, dim: int) -> TensorType:
    return TensorType(x.dtype, x.shape[:dim] + (MARK,) + x.shape[dim + 1 :])


def _with_first(c: Call, x: TensorType) -> tuple[Any, ...]:
    at = next(at for at, param in enumerate(c.spec.params) if param.kind.startswith("tensor"))
    return c.bound[:at] + (x,) + c.bound[at + 1 :]


def _along(c: Call) -> Followed | None:
    lie = c.only_first()
    for each in c.spec.rows.dims:
        value = c.arg(each) if isinstance(each, str) else each
        dims = (value,) if isinstance(value, int) else value
        if lie is None or not dims or lie.dim in {wrap(dim, len(c.given[0].shape)) for dim in dims}:
            return None
    return _traced(c)


def _view(c: Call) -> Followed | None:
    lie = c.only_first()
    if lie is None:
        return None
    name, x = c.spec.name, c.given[0]
    if name in ("view", "reshape", "flatten.using_ints", "unflatten.int"):
        return _reshaped(c, lie)
    if name == "expand":
        at = lie.dim + len(c.outputs[0].shape) - len(x.shape)
        size = c.arg("size")
        return Followed((Lie(at, lie.inner),), changed={1: size[:at] + (-1,) + size[at + 1 :]})
    if name == "slice.Tensor" and wrap(c.arg("dim"), len(x.shape)) == lie.dim:
        whole = c.outputs[0] == x and c.arg("step") == 1
        return Followed((lie,), changed={2: None, 3: None}) if whole else None
    if name.startswith("squeeze"):
        return _squeezed(c, lie)
    return _traced(c)


def _squeezed(c: Call, lie: Lie) -> Followed | None:
    """The dimensions squeezed are named: a slice of one row must not lose the rows' own."""
    found, shape = _traced(c), c.given[0].shape
    if c.spec.name == "squeeze":
        gone = tuple(at for at, length in enumerate(shape) if length == 1)
    else:
        dims = c.arg("dim")
        given = {wrap(dim, len(shape)) for dim in ((dims,) if isinstance(dims, int) else dims)}
        gone = tuple(at for at in sorted(given) if shape[at] == 1)
    return found and Followed(found.outputs, changed={1: gone}, name="squeeze.dims")


def _reshaped(c: Call, lie: Lie) -> Followed | None:
    """The rows stay where as many elements lie before them and they are the major part of a dimension."""
    old, new = c.given[0].shape, c.outputs[0].shape
    if 0 in old:
        return None
    before = _product(old[: lie.dim])
    at = next((d for d, n in enumerate(new) if n != 1 and _product(new[:d]) == before), None)
    if at is None or new[at] % c.batch:
        return None
    out = Lie(at, new[at] // c.batch)
    if c.spec.name in ("view", "reshape"):
        return Followed((out,), changed={1: new[:at] + (-1,) + new[at + 1 :]})
    if c.spec.name == "unflatten.int" and wrap(c.arg("dim"), len(old)) == lie.dim:
        sizes = new[lie.dim : lie.dim + len(c.arg("sizes"))]
        own = at - lie.dim
        return Followed((out,), changed={2: sizes[:own] + (-1,) + sizes[own + 1 :]})
    return Followed((out,))


def _product(lengths: Sequence[int]) -> int:
    total = 1
    for length in lengths:
        total *= length
    return total


def _fresh(c: Call) -> Followed:
    return Followed((None,) * len(c.outputs))


# -- several tensors, and places ----------------------------------------------------------------------------------------


def _joined(c: Call) -> Followed | None:
    """cat and stack: all tensors have their rows in one place, which is not where they are joined."""
    lies = {lie for lie in c.lies if lie is not None}
    if len(lies) != 1 or any(x.shape == (0,) for x in c.given):
        return None
    lie = lies.pop()
    stacks = c.spec.name == "stack"
    at = wrap(c.arg("dim"), len(c.outputs[0].shape))
    if not stacks and at == lie.dim:
        return None
    cuts = {number: lie for number, known in enumerate(c.lies) if known is None}
    return Followed((Lie(lie.dim + (stacks and at <= lie.dim), lie.inner),), cuts)


def _gather(c: Call) -> Followed | None:
    (x, index), dim = c.given, c.arg("dim")
    if dim is None or len(x.shape) != len(index.shape) or not x.shape:
        return None
    at = wrap(dim, len(x.shape))
    own, other = c.lies
    if own is None and other is not None and other.dim == at:
        return Followed((other,))
    lies = {lie for lie in c.lies if lie is not None}
    if len(lies) != 1:
        return None
    lie = lies.pop()
    free = index if other is None else x
    stretches = c.spec.name == "take_along_dim" and free.shape[lie.dim] == 1
    if lie.dim == at or (None in c.lies and not stretches and free.shape[lie.dim] != c.batch * lie.inner):
        return None
    cuts = {number: lie for number, known in enumerate(c.lies) if known is None and not stretches}
    return Followed((lie,), cuts)


def _index_select(c: Call) -> Followed | None:
    own, other = c.lies
    if other is None:
        return _along(c)
    x = c.given[0]
    return Followed((Lie(wrap(c.arg("dim"), len(x.shape)), other.inner),)) if own is None and x.shape else None


def _embedding(c: Call) -> Followed | None:
    own, places = c.lies
    return Followed((places,)) if own is None else None


def _index(c: Call) -> Followed | None:
    found = _places(c, c.lies[0])
    return None if found is None else Followed((found[0],), found[1], renumbered=found[2])


def _places(c: Call, own: Lie | None) -> tuple[Lie, dict[int, Lie], frozenset[int]] | None:
    """The rows of `x[indices]`, where x has them at `own`; what is cut for it, and the index that counts rows."""
    x, indices = c.given[0], c.arg("indices")
    numbers: dict[int, int] = {}  # dimension → number of the operand
    for at, index in enumerate(indices):
        if index is not None:
            numbers[at] = len(numbers) + 1
    counted = None
    if own is not None and own.dim not in numbers:
        if any(c.lies[number] is not None for number in numbers.values()):
            return None
        shape = indexed(_mark(x, own.dim).shape, indices)
        return Lie(shape.index(MARK), own.inner), {}, frozenset()
    places = {
        (lie.dim - len(c.given[number].shape), lie.inner)
        for number in numbers.values()
        if (lie := c.lies[number]) is not None
    }
    if own is not None:
        counted = numbers[own.dim]
        at = c.row_numbers(counted)
        if at is None or own.inner != 1:
            return None
        places.add((at - len(c.given[counted].shape), 1))
    if len(places) != 1:
        return None
    place, inner = places.pop()
    cuts: dict[int, Lie] = {}
    marked = list(indices)
    for dim, number in numbers.items():
        index = c.given[number]
        at = len(index.shape) + place
        if at >= 0 and index.shape[at] != 1:
            marked[dim] = _mark(index, at)
            if number != counted and c.lies[number] is None:
                cuts[number] = Lie(at, inner)
    shape = indexed(x.shape, tuple(marked))
    return Lie(shape.index(MARK), inner), cuts, frozenset() if counted is None else frozenset({counted})


def _index_put(c: Call) -> Followed | None:
    own = c.lies[0]
    if own is not None:
        return _put(c, own)
    if c.lies[-1] is None:
        return None
    tried = (_put(c, Lie(dim)) for dim, length in enumerate(c.given[0].shape) if length == c.batch)
    found = next((each for each in tried if each is not None), None)
    return found and Followed(found.outputs, {**found.cuts, 0: found.outputs[0] or Lie(0)}, {}, found.renumbered)


def _put(c: Call, own: Lie) -> Followed | None:
    places = _places(c, own)
    if places is None:
        return None
    rows, cuts, renumbered = places
    values, lie, number = c.given[-1], c.lies[-1], len(c.given) - 1
    place = rows.dim - len(indexed(c.given[0].shape, c.arg("indices")))
    at = len(values.shape) + place
    if lie is not None:
        return Followed((own,), cuts, renumbered=renumbered) if lie == Lie(at, rows.inner) else None
    if at >= 0 and values.shape[at] != 1:
        cuts = {**cuts, number: Lie(at, rows.inner)}
    return Followed((own,), cuts, renumbered=renumbered)


RULES: dict[str, Callable[[Call], Followed | None]] = {
    "pointwise": _pointwise, "traced": _traced, "view": _view, "along": _along, "leading": _leading, "fresh": _fresh,
    "matmul": _matmul, "einsum": _einsum, "joined": _joined, "gather": _gather, "index_select": _index_select,
    "embedding": _embedding, "index": _index, "index_put": _index_put, "unreduced": _unreduced, "classes": _classes,
    "similarity": _similarity,
}  # fmt: skip
"""A rule for each kind of row column; MIXED has none."""
