"""Arithmetic on shapes that many rules share."""

from __future__ import annotations

from collections.abc import Iterable

from weft.errors import OpError, ShapeError
from weft.ir.types import TensorType

Shape = tuple[int, ...]


def wrap(dim: int, ndim: int, what: str = "dimension") -> int:
    """`dim` counted from the front; a 0-dimensional tensor has the dimensions 0 and -1."""
    length = max(ndim, 1)
    if not -length <= dim < length:
        raise ShapeError(f"{what} {dim} is out of range: the tensor has {ndim}, so use {-length} to {length - 1}")
    return dim + length if dim < 0 else dim


def wrap_all(dims: Iterable[int] | None, ndim: int) -> tuple[int, ...]:
    """`dims` counted from the front, no repeats; None or none at all means every dimension."""
    given = tuple(dims) if dims is not None else ()
    if not given:
        return tuple(range(ndim))
    found = tuple(wrap(dim, ndim) for dim in given)
    if len(set(found)) != len(found):
        raise ShapeError(f"dimensions {given} name one dimension twice")
    return found


def broadcast(*shapes: Shape) -> Shape:
    """The shape that all `shapes` stretch to, lined up from the right."""
    ndim = max((len(shape) for shape in shapes), default=0)
    out = [1] * ndim
    for shape in shapes:
        for place, length in enumerate(shape, ndim - len(shape)):
            if length != 1:
                if out[place] not in (1, length):
                    shown = " and ".join(str(list(each)) for each in shapes)
                    raise ShapeError(
                        f"shapes {shown} do not fit: dimension {place - ndim} is {out[place]} and {length}; "
                        "lengths must be equal, or 1"
                    )
                out[place] = length
    return tuple(out)


def fits(shape: Shape, target: Shape, what: str) -> None:
    """ShapeError unless `shape` stretches to exactly `target`."""
    if broadcast(shape, target) != target:
        raise ShapeError(f"{what}: {list(shape)} does not stretch to {list(target)}")


def reduced(shape: Shape, dims: Iterable[int], keepdim: bool) -> Shape:
    """`shape` with `dims` (already wrapped) gone, or of length 1."""
    gone = set(dims)
    if keepdim:
        return tuple(1 if place in gone else length for place, length in enumerate(shape))
    return tuple(length for place, length in enumerate(shape) if place not in gone)


def without(shape: Shape, dim: int) -> Shape:
    return shape[:dim] + shape[dim + 1 :]


def with_length(shape: Shape, dim: int, length: int) -> Shape:
    return shape[:dim] + (length,) + shape[dim + 1 :]


def need_dims(op: str, tensor: TensorType, *allowed: int, name: str = "its operand") -> None:
    """ShapeError unless `tensor` has one of the allowed numbers of dimensions."""
    if len(tensor.shape) not in allowed:
        raise ShapeError(f"{op}: {name} must have {' or '.join(map(str, allowed))} dimensions, was {tensor}")


def need_nonempty(op: str, tensor: TensorType, dims: Iterable[int]) -> None:
    """ShapeError if one of `dims` has length 0: the op has no value for nothing."""
    for dim in dims:
        if dim < len(tensor.shape) and tensor.shape[dim] == 0:
            raise ShapeError(f"{op} has no value along dimension {dim} of {tensor}, which is empty")


def resolve(shape: Shape, numel: int) -> Shape:
    """`shape` with its one -1 worked out so that it holds `numel` elements."""
    if any(length < -1 for length in shape) or shape.count(-1) > 1:
        raise ShapeError(f"shape {list(shape)} may hold one -1 and no other negative length")
    known = 1
    for length in shape:
        known *= length if length >= 0 else 1
    if -1 in shape:
        if known == 0 or numel % known:
            raise ShapeError(f"{numel} elements cannot take the shape {list(shape)}")
        return tuple(numel // known if length == -1 else length for length in shape)
    if known != numel:
        raise ShapeError(f"{numel} elements cannot take the shape {list(shape)}, which holds {known}")
    return shape


def need_sizes(op: str, sizes: Iterable[int]) -> None:
    for length in sizes:
        if length < 0:
            raise ShapeError(f"{op}: lengths cannot be negative, was given {length}")


def one_of(op: str, name: str, value: object, *allowed: object) -> None:
    """OpError unless `value` is one of those an argument may have."""
    if value not in allowed:
        raise OpError(f"{op}: `{name}` must be one of {', '.join(map(repr, allowed))}, was {value!r}")
