"""Views: other ways of looking at a tensor's memory. The exact strides are in weft.ir.views."""

from __future__ import annotations

from functools import partial

from weft.errors import OpError, ShapeError
from weft.ir.optable.rows import VIEW
from weft.ir.optable.shapes import need_dims, need_sizes, resolve, with_length, without, wrap, wrap_all
from weft.ir.optable.spec import free, op
from weft.ir.types import TensorType

view = partial(op, alias="view", cost=free, rows=VIEW)
Ints = tuple[int, ...]


def slice_bounds(length: int, start: int | None, end: int | None, step: int) -> tuple[int, int]:
    """Where a slice starts and how many it holds, as PyTorch counts (out of range is cut, steps are positive)."""
    if not 0 < step < 2**48:
        raise ShapeError(f"slices go forward: step must be positive, was {step}; use flip to reverse")
    first = 0 if start is None else start
    last = length if end is None else end
    first = min(max(first + length if first < 0 else first, 0), length)
    last = min(max(last + length if last < 0 else last, first), length)
    return first, -(-(last - first) // step)


def place(x: TensorType, dim: int) -> int:
    """`dim` counted from the front, of a tensor that must have dimensions."""
    if not x.shape:
        raise ShapeError(f"{x} has no dimensions to index or cut")
    return wrap(dim, len(x.shape))


def _select(x: TensorType, dim: int, index: int) -> TensorType:
    at = place(x, dim)
    if not -x.shape[at] <= index < x.shape[at]:
        raise ShapeError(f"index {index} is out of range for dimension {at} of {x}")
    return TensorType(x.dtype, without(x.shape, at))


def _slice(x: TensorType, dim: int, start: int | None, end: int | None, step: int) -> TensorType:
    at = place(x, dim)
    return TensorType(x.dtype, with_length(x.shape, at, slice_bounds(x.shape[at], start, end, step)[1]))


def _narrow(x: TensorType, dim: int, start: int, length: int) -> TensorType:
    at = place(x, dim)
    first = start + x.shape[at] if start < 0 else start
    if not 0 <= first <= x.shape[at] or length < 0 or first + length > x.shape[at]:
        raise ShapeError(f"narrow: {length} from {start} is out of range for dimension {at} of {x}")
    return TensorType(x.dtype, with_length(x.shape, at, length))


def _reshape(x: TensorType, shape: Ints) -> TensorType:
    return TensorType(x.dtype, resolve(shape, x.numel))


def expanded(shape: Ints, size: Ints) -> Ints:
    """What `expand(size)` makes of `shape`."""
    lead = len(size) - len(shape)
    if lead < 0:
        raise ShapeError(f"expand: {list(size)} has fewer dimensions than {list(shape)}")
    out: list[int] = []
    for at, length in enumerate(size):
        old = shape[at - lead] if at >= lead else 1
        if length == -1 and at < lead:
            raise ShapeError(f"expand: -1 means unchanged, but dimension {at} of {list(size)} is new")
        if length != -1 and length != old and (old != 1 or length < 0):
            raise ShapeError(f"expand: dimension {at} of length {old} cannot become {length}; only 1 stretches")
        out.append(old if length == -1 else length)
    return tuple(out)


def _expand(x: TensorType, size: Ints, implicit: bool) -> TensorType:
    return TensorType(x.dtype, expanded(x.shape, size))


def _permute(x: TensorType, dims: Ints) -> TensorType:
    if len(dims) != len(x.shape):
        raise ShapeError(f"permute: {list(dims)} must name each dimension of {x} once")
    return TensorType(x.dtype, tuple(x.shape[dim] for dim in wrap_all(dims, len(x.shape))))


def _transpose(x: TensorType, dim0: int, dim1: int) -> TensorType:
    a, b = wrap(dim0, len(x.shape)), wrap(dim1, len(x.shape))
    if not x.shape:
        return x
    shape = list(x.shape)
    shape[a], shape[b] = shape[b], shape[a]
    return TensorType(x.dtype, tuple(shape))


def _t(x: TensorType) -> TensorType:
    need_dims("t", x, 0, 1, 2)
    return TensorType(x.dtype, x.shape[::-1])


def _unsqueeze(x: TensorType, dim: int) -> TensorType:
    at = wrap(dim, len(x.shape) + 1)
    return TensorType(x.dtype, x.shape[:at] + (1,) + x.shape[at:])


def _squeeze(x: TensorType, dims: Ints | int | None = None) -> TensorType:
    if dims is None:
        return TensorType(x.dtype, tuple(length for length in x.shape if length != 1))
    given = (dims,) if isinstance(dims, int) else dims
    gone: set[int] = set(wrap_all(given, len(x.shape))) if given else set()
    return TensorType(x.dtype, tuple(n for at, n in enumerate(x.shape) if n != 1 or at not in gone))


def _unfold(x: TensorType, dimension: int, size: int, step: int) -> TensorType:
    at = wrap(dimension, len(x.shape))
    length = x.shape[at] if x.shape else 1
    if not 0 <= size <= length or step <= 0:
        raise ShapeError(f"unfold: windows of {size} every {step} do not fit dimension {at} of {x}")
    if not x.shape:
        return TensorType(x.dtype, (size,))
    return TensorType(x.dtype, with_length(x.shape, at, (length - size) // step + 1) + (size,))


def diagonal_length(rows: int, columns: int, offset: int) -> int:
    return max(min(rows, columns - offset) if offset >= 0 else min(rows + offset, columns), 0)


def _diagonal(x: TensorType, offset: int, dim1: int, dim2: int) -> TensorType:
    a, b = wrap(dim1, len(x.shape)), wrap(dim2, len(x.shape))
    if a == b:
        raise ShapeError(f"diagonal: dim1 and dim2 are the same dimension of {x}")
    rest = tuple(length for at, length in enumerate(x.shape) if at not in (a, b))
    return TensorType(x.dtype, rest + (diagonal_length(x.shape[a], x.shape[b], offset),))


def split_sizes(length: int, size: int) -> Ints:
    """The lengths into which `split` cuts a dimension."""
    if size < 0 or (size == 0 and length):
        raise ShapeError(f"split: parts must have a positive length, was given {size}")
    if length == 0 or size == 0:
        return (length,)
    return tuple(min(size, length - at) for at in range(0, length, size))


def _cut(x: TensorType, at: int, sizes: Ints) -> tuple[TensorType, ...]:
    if len(sizes) > 10_000:
        raise OpError(f"cutting {x} gives {len(sizes)} parts; at most 10000 are allowed")
    return tuple(TensorType(x.dtype, with_length(x.shape, at, size)) for size in sizes)


def _split(x: TensorType, size: int, dim: int) -> tuple[TensorType, ...]:
    at = place(x, dim)
    if size > 0 and x.shape[at] // size > 10_000:
        raise OpError(f"split: {x} would fall into {x.shape[at] // size} parts; at most 10000 are allowed")
    return _cut(x, at, split_sizes(x.shape[at], size))


def _split_with_sizes(x: TensorType, sizes: Ints, dim: int) -> tuple[TensorType, ...]:
    at = place(x, dim)
    need_sizes("split_with_sizes", sizes)
    if sum(sizes) != x.shape[at]:
        raise ShapeError(f"split_with_sizes: {list(sizes)} add up to {sum(sizes)}, not to the {x.shape[at]} of {x}")
    if not sizes:
        raise ShapeError("split_with_sizes needs at least one length")
    return _cut(x, at, sizes)


def _unbind(x: TensorType, dim: int) -> tuple[TensorType, ...]:
    at = place(x, dim)
    if not 0 < x.shape[at] <= 10_000:
        raise OpError(f"unbind: {x} would fall into {x.shape[at]} parts; 1 to 10000 are allowed")
    return (TensorType(x.dtype, without(x.shape, at)),) * x.shape[at]


def _movedim(x: TensorType, source: Ints | int, destination: Ints | int) -> TensorType:
    sources = (source,) if isinstance(source, int) else source
    targets = (destination,) if isinstance(destination, int) else destination
    if len(sources) != len(targets):
        raise ShapeError(f"movedim: {sources} and {targets} must be equally many")
    if not sources or not x.shape:
        return x
    given = dict(zip(wrap_all(targets, len(x.shape)), wrap_all(sources, len(x.shape)), strict=True))
    rest = iter(at for at in range(len(x.shape)) if at not in given.values())
    return TensorType(x.dtype, tuple(x.shape[given[at] if at in given else next(rest)] for at in range(len(x.shape))))


def _flatten(x: TensorType, start: int, end: int) -> TensorType:
    a, b = wrap(start, len(x.shape)), wrap(end, len(x.shape))
    if a > b:
        raise ShapeError(f"flatten: start_dim {start} comes after end_dim {end}")
    if not x.shape:
        return TensorType(x.dtype, (1,))
    merged = 1
    for length in x.shape[a : b + 1]:
        merged *= length
    return TensorType(x.dtype, x.shape[:a] + (merged,) + x.shape[b + 1 :])


def _unflatten(x: TensorType, dim: int, sizes: Ints) -> TensorType:
    at = place(x, dim)
    if not sizes:
        raise ShapeError("unflatten needs at least one length")
    return TensorType(x.dtype, x.shape[:at] + resolve(sizes, x.shape[at]) + x.shape[at + 1 :])


def _same(x: TensorType) -> TensorType:
    return x


view("select.int", "tensor self, int dim, int index", _select)
view("slice.Tensor", "tensor self, int dim=0, int? start=None, int? end=None, int step=1", _slice)
view("narrow", "tensor self, int dim, int start, int length", _narrow)
view("view", "tensor self, ints size", _reshape)
view("reshape", "tensor self, ints shape", _reshape)
view("expand", "tensor self, ints size, bool implicit=False", _expand)
view("permute", "tensor self, ints dims", _permute)
view("transpose.int", "tensor self, int dim0, int dim1", _transpose)
view("t", "tensor self", _t)
view("unsqueeze", "tensor self, int dim", _unsqueeze)
view("squeeze", "tensor self", _squeeze)
view("squeeze.dim", "tensor self, int dim", _squeeze)
view("squeeze.dims", "tensor self, ints dim", _squeeze)
view("unfold", "tensor self, int dimension, int size, int step", _unfold)
view("diagonal", "tensor self, int offset=0, int dim1=0, int dim2=1", _diagonal)
view("split.Tensor", "tensor self, int split_size, int dim=0", _split, outputs=None)
view("split_with_sizes", "tensor self, ints split_sizes, int dim=0", _split_with_sizes, outputs=None)
view("unbind.int", "tensor self, int dim=0", _unbind, outputs=None)
view("movedim.intlist", "tensor self, ints source, ints destination", _movedim)
view("movedim.int", "tensor self, int source, int destination", _movedim)
view("flatten.using_ints", "tensor self, int start_dim=0, int end_dim=-1", _flatten)
view("unflatten.int", "tensor self, int dim, ints sizes", _unflatten)
view("alias", "tensor self", _same)
view("detach", "tensor self", _same)
