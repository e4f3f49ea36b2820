"""Tensors of the user's own, met while tracing: what becomes of them, and how they are known again.

Up to 1 MiB a tensor is copied when it is met, so that changing it later changes nothing. A larger one is held, together
with its version counter; when the block ends it must still have that version, else the experiment is refused.
"""

from __future__ import annotations

from functools import cached_property

import torch

from weft.errors import Location, TraceError
from weft.ir.constant import digest_of
from weft.models.dtypes import DTYPES, NAMES, type_of

COPIED = 1 << 20
"""Tensors of at most this many bytes are copied when met."""


class TensorConstant:
    """A constant held as a torch tensor; the ConstantData of the tracer and the executor."""

    def __init__(self, tensor: torch.Tensor, *, where: Location | None = None) -> None:
        self.type = type_of(tensor)
        self.source = tensor
        detached = tensor.detach()
        self.copied = self.type.nbytes <= COPIED
        self.tensor = detached.clone(memory_format=torch.contiguous_format) if self.copied else detached
        self.version = tensor._version
        self.where = where

    def check_unchanged(self) -> None:
        """TraceError if a large tensor was changed in place after it was used."""
        if not self.copied and self.source._version != self.version:
            raise TraceError(
                f"a tensor of {self.type} was changed in place after it was used in this session; "
                "change it before the block, or use a .clone() of it",
                where=self.where,
            )

    def tobytes(self) -> bytes:
        flat = self.tensor.detach().cpu().contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.type, self.tobytes())

    def digest(self) -> str:
        return self._digest

    def __eq__(self, other: object) -> bool:
        digest = getattr(other, "digest", None)
        return other is self or (digest is not None and digest() == self.digest())

    def __hash__(self) -> int:
        return hash(self.digest())


__all__ = ["COPIED", "DTYPES", "NAMES", "TensorConstant", "type_of"]
