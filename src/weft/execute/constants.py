"""A constant's data as a torch tensor, whoever holds it."""

from __future__ import annotations

from typing import Any

import torch

from weft.ir.nodes import ConstantData


def to_tensor(data: ConstantData, device: torch.device) -> torch.Tensor:
    """A tensor with the constant's numbers (the caller must not change it)."""
    held: Any = getattr(data, "tensor", None)
    if isinstance(held, torch.Tensor):
        return held.to(device)
    raw = bytearray(data.tobytes())
    dtype = getattr(torch, data.type.dtype)
    if not raw:
        return torch.zeros(data.type.shape, dtype=dtype, device=device)
    return torch.frombuffer(raw, dtype=dtype).reshape(data.type.shape).to(device)
