"""Torch's dtypes and the program's names for them."""

from __future__ import annotations

import torch

from weft.errors import TraceError
from weft.ir.types import DTYPES as INFOS
from weft.ir.types import TensorType

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in INFOS}
NAMES: dict[torch.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}


def type_of(tensor: torch.Tensor) -> TensorType:
    """The dtype and shape of a real tensor; TraceError for a dtype weft does not have (complex, quantised)."""
    if tensor.dtype not in NAMES:
        raise TraceError(f"a tensor of {tensor.dtype} cannot be used in an experiment; convert it with .to(...) first")
    return TensorType(NAMES[tensor.dtype], tuple(tensor.shape))
