"""How far the values of index operands may reach: the column `index` of the table, worked out for given types."""

from __future__ import annotations

from typing import Any, NamedTuple

from weft.ir.optable.shapes import wrap
from weft.ir.optable.spec import Index, OpSpec
from weft.ir.types import TensorType


class Bound(NamedTuple):
    """The values of argument `place` (its `item`-th, where it is a list) lie in low ≤ value < high, or are `ignore`."""

    place: int
    item: int | None
    low: int
    high: int
    ignore: int | None = None


def bounds(spec: OpSpec, bound: tuple[Any, ...]) -> list[Bound]:
    """The limits for each index operand among fully bound arguments, in which operands are types (or have a shape)."""
    out: list[Bound] = []
    for index in spec.index:
        at = spec.place(index.param)
        given = bound[at]
        ignore = bound[spec.place(index.ignore)] if index.ignore else None
        if index.size:
            out.append(Bound(at, None, 0, bound[spec.place(index.size)], ignore))
        elif index.dim == "position":
            shape = bound[spec.place(index.of)].shape
            items = [item for item, each in enumerate(given) if each is not None]
            out.extend(Bound(at, item, -shape[item] if index.negative else 0, shape[item]) for item in items)
        elif given is not None and (high := _high(spec, index, bound)) is not None:
            out.append(Bound(at, None, -high if index.negative else 0, high, ignore))
    return out


def _high(spec: OpSpec, index: Index, bound: tuple[Any, ...]) -> int | None:
    shape = bound[spec.place(index.of)].shape
    numel = TensorType("bool", tuple(shape)).numel
    if index.dim == "flat":
        return numel
    if index.dim == "class":
        target = bound[spec.place(index.param)]
        # Probabilities instead of classes are no index.
        return None if target.shape == shape and len(shape) else shape[1 if len(shape) > 1 else 0]
    dim = bound[spec.place(index.dim)] if isinstance(index.dim, str) else index.dim
    if dim is None:
        return numel
    return shape[wrap(dim, len(shape))] if shape else 1
