"""Views as numbers: which elements of a dense tensor a chain of views leads to.

    view = apply_chain((4, 6), (), [ViewStep("select.int", (0, 1)), ViewStep("slice.Tensor", (0, 2))])
    view                        → View(offset=8, sizes=(4,), strides=(1,))
    box((4, 6), (), view)       → (Span(1, 1), Span(2, 4)): row 1, columns 2 to 5

Offsets and strides are PyTorch's own, element for element, so that what a write touches is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from weft.errors import OpError, ShapeError
from weft.ir.nodes import ViewStep
from weft.ir.optable.shapes import Shape, resolve, wrap, wrap_all
from weft.ir.optable.viewing import diagonal_length, expanded, place, slice_bounds, split_sizes
from weft.ir.types import TensorType


class View(NamedTuple):
    """Part of a tensor's memory: where it begins, its shape, and how far apart neighbours are, in elements."""

    offset: int
    sizes: Shape
    strides: Shape


class Span(NamedTuple):
    """Every `step`-th index of a dimension: `length` of them from `start` on."""

    start: int
    length: int
    step: int = 1


Box = tuple[Span, ...]


def strides(shape: Shape, layout: Shape = ()) -> Shape:
    """Strides of a dense tensor. `layout` names its dimensions from the outermost in memory to the innermost."""
    order = layout or tuple(range(len(shape)))
    if sorted(order) != list(range(len(shape))):
        raise ShapeError(f"layout {list(order)} must name each of the {len(shape)} dimensions of {list(shape)} once")
    out, step = [1] * len(shape), 1
    for dim in reversed(order):
        out[dim] = step
        step *= max(shape[dim], 1)
    return tuple(out)


def dense(shape: Shape, layout: Shape = ()) -> View:
    """A whole tensor as a view of itself."""
    return View(0, tuple(shape), strides(shape, layout))


def apply_chain(shape: Shape, layout: Shape, steps: Iterable[ViewStep]) -> View:
    """Where a chain of views on a dense tensor of `shape` leads."""
    view = dense(shape, layout)
    for each in steps:
        view = step(view, each.op, each.args)
    return view


def step(view: View, op: str, args: tuple[Any, ...] = ()) -> View:
    """One view more. OpError if `op` is no view, ShapeError if it does not fit."""
    rule = STEPS.get(op)
    if rule is None:
        raise OpError(f"{op} is no view; views are {', '.join(STEPS)}")
    try:
        return rule(view, *args)
    except (TypeError, ValueError) as error:
        raise OpError(f"{op}{args}: these are not its arguments ({error})") from None


def parts(op: str, args: Sequence[Any], shape: Shape) -> tuple[ViewStep, ...] | None:
    """Each output of a view op of several outputs as a view of its own; None if `op` is not one of those."""
    if op == "unbind.int":
        dim = args[0] if args else 0
        return tuple(ViewStep("select.int", (dim, at)) for at in range(shape[wrap(dim, len(shape))]))
    if op == "split.Tensor":
        dim = args[1] if len(args) > 1 else 0
        return _slices(dim, split_sizes(shape[wrap(dim, len(shape))], args[0]))
    if op == "split_with_sizes":
        return _slices(args[1] if len(args) > 1 else 0, args[0])
    return None


def _slices(dim: int, sizes: Shape) -> tuple[ViewStep, ...]:
    out: list[ViewStep] = []
    start = 0
    for size in sizes:
        out.append(ViewStep("slice.Tensor", (dim, start, start + size)))
        start += size
    return tuple(out)


# -- one rule a view ----------------------------------------------------------------------------------------------------


def _type(view: View) -> TensorType:
    return TensorType("float32", view.sizes)


def _select(view: View, dim: int, index: int) -> View:
    at = place(_type(view), dim)
    length = view.sizes[at]
    if not -length <= index < length:
        raise ShapeError(f"index {index} is out of range for dimension {at} of {list(view.sizes)}")
    offset = view.offset + (index + length if index < 0 else index) * view.strides[at]
    return View(offset, view.sizes[:at] + view.sizes[at + 1 :], view.strides[:at] + view.strides[at + 1 :])


def _slice(view: View, dim: int = 0, start: int | None = None, end: int | None = None, by: int = 1) -> View:
    at = place(_type(view), dim)
    first, length = slice_bounds(view.sizes[at], start, end, by)
    offset = view.offset + first * view.strides[at]
    return View(offset, _put(view.sizes, at, length), _put(view.strides, at, view.strides[at] * by))


def _narrow(view: View, dim: int, start: int, length: int) -> View:
    at = place(_type(view), dim)
    first = start + view.sizes[at] if start < 0 else start
    if first < 0 or length < 0 or first + length > view.sizes[at]:
        raise ShapeError(f"narrow: {length} from {start} is out of range for dimension {at} of {list(view.sizes)}")
    return _slice(view, at, first, first + length)


def _put(shape: Shape, at: int, value: int) -> Shape:
    return shape[:at] + (value,) + shape[at + 1 :]


def _view(view: View, size: Shape) -> View:
    numel = 1
    for length in view.sizes:
        numel *= length
    shape = resolve(tuple(size), numel)
    found = _view_strides(view, shape, numel)
    if found is None:
        raise ShapeError(
            f"view: shape {list(view.sizes)} with strides {list(view.strides)} cannot be seen as {list(shape)} without "
            "copying; use reshape"
        )
    return View(view.offset, shape, found)


def _view_strides(view: View, shape: Shape, numel: int) -> Shape | None:
    """PyTorch's computeStride: chunks of dimensions that lie together in memory may be cut anew, each within itself."""
    if numel == 0:
        return view.strides if view.sizes == shape else strides(shape)
    if not view.sizes:
        return (1,) * len(shape)
    out, at = [0] * len(shape), len(shape) - 1
    base, chunk, seen = view.strides[-1], 1, 1
    for dim in range(len(view.sizes) - 1, -1, -1):
        chunk *= view.sizes[dim]
        ends = dim == 0 or (view.sizes[dim - 1] != 1 and view.strides[dim - 1] != chunk * base)
        if not ends:
            continue
        while at >= 0 and (seen < chunk or shape[at] == 1):
            out[at] = seen * base
            seen *= shape[at]
            at -= 1
        if seen != chunk:
            return None
        if dim > 0:
            base, chunk, seen = view.strides[dim - 1], 1, 1
    return tuple(out) if at == -1 else None


def _expand(view: View, size: Shape, implicit: bool = False) -> View:
    shape = expanded(view.sizes, tuple(size))
    if not view.sizes:
        return View(view.offset, shape, (0,) * len(shape))
    lead, out = len(shape) - len(view.sizes), [0] * len(shape)
    for at in range(len(shape) - 1, -1, -1):
        old = view.sizes[at - lead] if at >= lead else 1
        stride = view.strides[at - lead] if at >= lead else (shape[at + 1] * out[at + 1] if at + 1 < len(shape) else 1)
        out[at] = stride if old == shape[at] else 0
    return View(view.offset, shape, tuple(out))


def _permute(view: View, dims: Shape) -> View:
    if len(dims) != len(view.sizes):
        raise ShapeError(f"permute: {list(dims)} must name each dimension of {list(view.sizes)} once")
    order = wrap_all(dims, len(view.sizes))
    return View(view.offset, tuple(view.sizes[at] for at in order), tuple(view.strides[at] for at in order))


def _transpose(view: View, dim0: int, dim1: int) -> View:
    a, b = wrap(dim0, len(view.sizes)), wrap(dim1, len(view.sizes))
    if not view.sizes:
        return view
    order = list(range(len(view.sizes)))
    order[a], order[b] = b, a
    return _permute(view, tuple(order))


def _t(view: View) -> View:
    if len(view.sizes) > 2:
        raise ShapeError(f"t: {list(view.sizes)} has more than two dimensions; use mT")
    return View(view.offset, view.sizes[::-1], view.strides[::-1])


def _unsqueeze(view: View, dim: int) -> View:
    at = wrap(dim, len(view.sizes) + 1)
    stride = view.sizes[at] * view.strides[at] if at < len(view.sizes) else 1
    return View(
        view.offset, view.sizes[:at] + (1,) + view.sizes[at:], view.strides[:at] + (stride,) + view.strides[at:]
    )


def _squeeze(view: View, dims: Shape | int | None = None) -> View:
    n = len(view.sizes)
    if dims is None:
        gone: set[int] = set(range(n))
    else:
        given = (dims,) if isinstance(dims, int) else dims
        gone = set(wrap_all(given, n)) if given else set()
    kept = [at for at in range(n) if view.sizes[at] != 1 or at not in gone]
    return View(view.offset, tuple(view.sizes[at] for at in kept), tuple(view.strides[at] for at in kept))


def _unfold(view: View, dimension: int, size: int, by: int) -> View:
    at = wrap(dimension, len(view.sizes))
    length = view.sizes[at] if view.sizes else 1
    if not 0 <= size <= length or by <= 0:
        raise ShapeError(f"unfold: windows of {size} every {by} do not fit dimension {at} of {list(view.sizes)}")
    if not view.sizes:
        return View(view.offset, (size,), (1,))
    sizes = _put(view.sizes, at, (length - size) // by + 1) + (size,)
    return View(view.offset, sizes, _put(view.strides, at, view.strides[at] * by) + (view.strides[at],))


def _diagonal(view: View, offset: int = 0, dim1: int = 0, dim2: int = 1) -> View:
    a, b = wrap(dim1, len(view.sizes)), wrap(dim2, len(view.sizes))
    if a == b:
        raise ShapeError("diagonal: dim1 and dim2 are the same dimension")
    length = diagonal_length(view.sizes[a], view.sizes[b], offset)
    start = view.offset
    if length:
        start += offset * view.strides[b] if offset >= 0 else -offset * view.strides[a]
    kept = [at for at in range(len(view.sizes)) if at not in (a, b)]
    sizes = tuple(view.sizes[at] for at in kept) + (length,)
    return View(start, sizes, tuple(view.strides[at] for at in kept) + (view.strides[a] + view.strides[b],))


def _movedim(view: View, source: Shape | int, destination: Shape | int) -> View:
    sources = (source,) if isinstance(source, int) else source
    targets = (destination,) if isinstance(destination, int) else destination
    n = len(view.sizes)
    if len(sources) != len(targets):
        raise ShapeError(f"movedim: {sources} and {targets} must be equally many")
    if not sources or not n:
        return view
    given = dict(zip(wrap_all(targets, n), wrap_all(sources, n), strict=True))
    rest = iter(at for at in range(n) if at not in given.values())
    return _permute(view, tuple(given[at] if at in given else next(rest) for at in range(n)))


def _flatten(view: View, start: int = 0, end: int = -1) -> View:
    n = len(view.sizes)
    a, b = wrap(start, n), wrap(end, n)
    if a > b:
        raise ShapeError(f"flatten: start_dim {start} comes after end_dim {end}")
    merged = 1
    for length in view.sizes[a : b + 1]:
        merged *= length
    return _view(view, view.sizes[:a] + (merged,) + view.sizes[b + 1 :])


def _unflatten(view: View, dim: int, sizes: Shape) -> View:
    at = place(_type(view), dim)
    return _view(view, view.sizes[:at] + resolve(tuple(sizes), view.sizes[at]) + view.sizes[at + 1 :])


def _same(view: View) -> View:
    return view


STEPS: dict[str, Callable[..., View]] = {
    "select.int": _select,
    "slice.Tensor": _slice,
    "narrow": _narrow,
    "view": _view,
    "reshape": _view,
    "expand": _expand,
    "permute": _permute,
    "transpose.int": _transpose,
    "t": _t,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "squeeze.dim": _squeeze,
    "squeeze.dims": _squeeze,
    "unfold": _unfold,
    "diagonal": _diagonal,
    "movedim.intlist": _movedim,
    "movedim.int": _movedim,
    "flatten.using_ints": _flatten,
    "unflatten.int": _unflatten,
    "alias": _same,
    "detach": _same,
}
"""The views that may stand in a chain. Those of several outputs stand there as their `parts`."""


# -- regions ------------------------------------------------------------------------------------------------------------


def overlaps(view: View) -> bool:
    """Whether two places of the view may be one element (writing there is refused). True is certain only where strides
    are 0; otherwise the answer errs towards True."""
    reach = 0
    for stride, size in sorted((t, n) for t, n in zip(view.strides, view.sizes, strict=True) if n > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def box(shape: Shape, layout: Shape, view: View) -> Box | None:
    """The elements of a view as one span for each dimension of the root, or None where they are no box.

    Each stride of the view must be a multiple of one of the root's. A dimension that runs through a whole root
    dimension goes on in the next (merged dimensions); several may share one root dimension if together they leave no
    gaps. Nothing may carry over from one root dimension into the next otherwise, so that dimensions stay independent.
    """
    if 0 in view.sizes:  # nothing at all, which a root without dimensions cannot say
        return tuple(Span(0, 0) for _ in shape) or None
    root = strides(shape, layout)
    start = [view.offset // root[at] % shape[at] for at in range(len(shape))]
    ascending = sorted((at for at in range(len(shape)) if shape[at] > 1), key=lambda at: root[at])
    shares: dict[int, list[tuple[int, int]]] = {at: [] for at in ascending}
    for stride, size in zip(view.strides, view.sizes, strict=True):
        if size > 1 and stride and not _share(stride, size, shape, root, start, ascending, shares):
            return None
    spans = [Span(at, 1) for at in start]
    for at, found in shares.items():
        span = _span(start[at], found, shape[at])
        if span is None:
            return None
        spans[at] = span
    return tuple(spans)


def _share(
    stride: int,
    size: int,
    shape: Shape,
    root: Shape,
    start: list[int],
    ascending: list[int],
    shares: dict[int, list[tuple[int, int]]],
) -> bool:
    """Hand one dimension of the view to the root dimensions it runs through; False if it fits none."""
    for at in ascending:
        if size == 1:
            return True
        if not root[at] <= stride < root[at] * shape[at]:
            continue
        if stride % root[at]:
            return False
        by = stride // root[at]
        if start[at] + by * (size - 1) < shape[at]:
            shares[at].append((by, size))
            return True
        inner = shape[at] // by
        if shape[at] % by or start[at] >= by or size % inner:
            return False
        shares[at].append((by, inner))
        stride, size = stride * inner, size // inner
    return size == 1


def _span(start: int, found: list[tuple[int, int]], length: int) -> Span | None:
    """One span from the strides and sizes that share a root dimension; None if they leave gaps or carry over."""
    reach, step_ = 0, 0
    for by, size in sorted(found):
        step_ = step_ or by
        if by % step_ or by > reach + step_:
            return None
        reach += by * (size - 1)
    if start + reach >= length:
        return None
    return Span(start, reach // step_ + 1, step_) if step_ else Span(start, 1)
