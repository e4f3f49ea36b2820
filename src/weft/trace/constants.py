"""Tensors of the user's own, met while tracing: what becomes of them, and how they are known again.

Up to 1 MiB a tensor is copied when it is met, so that changing it later changes nothing. A larger one is held; when the
block ends it must still be what it was, else the experiment is refused. PyTorch counts its own changes in place, but not
those made through .data or NumPy: so numbers are compared too, all of them where memory is shared with NumPy (or
nothing counts), else 65,536 spread over the whole.
"""

from __future__ import annotations

from functools import cached_property

import torch

from weft.errors import Location, TraceError
from weft.ir.constant import digest_of
from weft.models.dtypes import DTYPES, NAMES, type_of

COPIED = 1 << 20
"""Tensors of at most this many bytes are copied when met."""
SAMPLE = 1 << 16
"""How many numbers of a larger tensor are compared."""

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def version_of(tensor: torch.Tensor) -> int:
    """How often PyTorch has changed a tensor in place; -1 where it does not count."""
    return -1 if tensor.is_inference() else tensor._version


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as integers, so that NaN equals NaN and -0.0 is not 0.0."""
    return tensor.view(_BITS[tensor.element_size()])


class TensorConstant:
    """A constant held as a torch tensor; the ConstantData of the tracer and the executor."""

    def __init__(self, tensor: torch.Tensor, *, where: Location | None = None) -> None:
        self.type = type_of(tensor)
        detached = tensor.detach()
        self.copied = self.type.nbytes <= COPIED
        self.tensor = detached.clone(memory_format=torch.contiguous_format) if self.copied else detached
        self.version = version_of(tensor)
        self.where = where
        self.source = tensor
        self.seen = None if self.copied else self._numbers()
        self._pointer = tensor.data_ptr() if self.copied else 0

    def _numbers(self) -> torch.Tensor:
        """What is compared of a large tensor: a copy of a sample, or sums by row and column over everything."""
        found = bits(self.tensor)
        if self.version >= 0 and self.source.untyped_storage().resizable():
            flat = found.reshape(-1) if found.is_contiguous() else found.flatten()
            return flat[:: max(1, flat.numel() // SAMPLE)].clone()
        flat = found.flatten().to(torch.int64)
        whole = flat[: flat.numel() // 1024 * 1024].view(-1, 1024)
        return torch.cat([whole.sum(0), whole.sum(1), flat[whole.numel() :]])

    def check_unchanged(self) -> None:
        """TraceError if a large tensor was changed in place after it was used."""
        if self.seen is None:
            return
        if version_of(self.source) != self.version or not torch.equal(self._numbers(), self.seen):
            raise TraceError(
                f"a tensor of {self.type} was changed in place after it was used in this session; "
                "change it before the block, or use a .clone() of it",
                where=self.where,
            )

    def is_still(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor`, of which this constant was made, has the numbers it had then."""
        if not self.copied:
            return True
        return tensor.data_ptr() == self._pointer and torch.equal(bits(tensor.detach()), bits(self.tensor))

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


__all__ = ["COPIED", "DTYPES", "NAMES", "TensorConstant", "type_of", "version_of"]
