"""Boolean masks as indices, so that no shape depends on the model's numbers.

A mask whose numbers are at hand becomes the places where it is true. One of the model's own may only say where a single
number is written, which is a where.
"""

from __future__ import annotations

from typing import Any

import torch

from weft.errors import OpError
from weft.trace.location import where
from weft.trace.tensor import Traced

aten = torch.ops.aten
_WAY_OUT = (
    "a boolean mask with no numbers yet gives a shape that depends on the model's numbers; "
    "use torch.where(mask, value, x), or x * mask"
)


def real_mask(index: torch.Tensor) -> torch.Tensor | None:
    return index.numbers if type(index) is Traced else index


def selected(args: Any) -> tuple[Any, Any]:
    """masked_select by a mask at hand, as indexing."""
    x, real = args[0], real_mask(args[1])
    if real is None:
        raise OpError(_WAY_OUT, where=where())
    shape = torch.broadcast_shapes(x.shape, real.shape)
    return aten.index.Tensor, (x.expand(shape), list(real.expand(shape).nonzero(as_tuple=True)))


def without_masks(func: Any, args: Any) -> tuple[Any, Any]:
    """The same call with indices for masks."""
    if func is aten.masked_select.default:
        return selected(args)
    indices: list[Any] = []
    for index in args[1]:
        if isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8):
            mask = real_mask(index)
            if mask is None:
                return _where_masked(func, args, index)
            indices.extend(mask.nonzero(as_tuple=True))
        else:
            indices.append(index)
    return func, (args[0], indices, *args[2:])


def _where_masked(func: Any, args: Any, mask: torch.Tensor) -> tuple[Any, Any]:
    x, given = args[0], [index for index in args[1] if index is not None]
    plain = len(given) == 1 and args[1][0] is mask and mask.shape == x.shape[: mask.dim()]
    if func is aten.index.Tensor or not plain or args[2].numel() != 1 or (len(args) > 3 and args[3]):
        raise OpError(_WAY_OUT, where=where())
    while mask.dim() < x.dim():
        mask = aten.unsqueeze.default(mask, -1)
    value = args[2] if args[2].dtype == x.dtype else args[2].to(x.dtype)
    if func is aten.index_put.default:
        return aten.where.self, (mask, value.reshape(()), x)
    return aten.masked_fill_.Tensor, (x, mask, value.reshape(()))
