"""Factory functions inside a session: `torch.zeros(...)` there may be filled with traced values.

A torch function mode is on while the block runs. It leaves everything alone but the factory functions, whose result it
wraps as a traced tensor with known numbers. Calls made by torch's own modules (parameters being made) are left alone.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from weft.trace.dispatch import known, on_function
from weft.trace.tensor import Traced

_TORCH = os.path.dirname(torch.__file__) + os.sep
_WEFT = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_USERS = tuple(os.path.join(_WEFT, name) + os.sep for name in ("methods", "tasks"))
"""Parts of weft that are written as its users write."""

_NEW = (
    "zeros ones full empty arange range linspace logspace eye tensor scalar_tensor rand randn randint randperm normal "
    "tril_indices triu_indices hann_window"
).split()
FACTORIES = {getattr(torch, name) for name in _NEW}
_LIKE = {getattr(torch, f"{name}_like") for name in "zeros ones full empty rand randn randint".split()}
_METHODS = {getattr(torch.Tensor, f"new_{name}") for name in "zeros ones full empty tensor".split()}
_MAKING = FACTORIES | _LIKE | _METHODS
_UNFILLED = {
    torch.empty: torch.zeros,
    torch.empty_like: torch.zeros_like,
    torch.Tensor.new_empty: torch.Tensor.new_zeros,
}


class _Local(threading.local):
    paused = 0


_local = _Local()


class paused:
    """While a model runs, which makes tensors of its own: no session that is open in this thread takes them over."""

    def __enter__(self) -> None:
        _local.paused += 1

    def __exit__(self, *_: object) -> None:
        _local.paused -= 1


def paused_here() -> bool:
    """Whether a model is running in this thread."""
    return bool(_local.paused)


class Factories(TorchFunctionMode):
    """The mode; `owner` is the session whose graph the results belong to."""

    def __init__(self, owner: Any) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _local.paused:
            return func(*args, **kwargs)
        if func in _MAKING:
            return self._make(func, args, kwargs)
        if Traced in types:
            return on_function(func, args, kwargs)
        return func(*args, **kwargs)

    def _make(self, func: Any, args: Any, kwargs: Any) -> Any:
        if _own(sys._getframe(2).f_code.co_filename) or kwargs.get("out") is not None:
            return func(*args, **kwargs)
        func = _UNFILLED.get(func, func)
        wants_grad = kwargs.get("requires_grad", False)
        if args and type(args[0]) is Traced:
            args = (_stand_in(args[0]), *args[1:])
        if "device" in kwargs:
            kwargs = {**kwargs, "device": "cpu"}
        made = func(*args, **kwargs)
        return made if wants_grad or self.owner.done else known(self.owner, made)


def _own(file: str) -> bool:
    """Whether a call comes from torch or from weft itself, which want plain tensors."""
    return file.startswith((_TORCH, _WEFT)) and not file.startswith(_USERS)


def _stand_in(x: Traced) -> torch.Tensor:
    """A tensor of the same size and dtype for `zeros_like` and `new_zeros` (its numbers do not matter)."""
    dtype, size, _ = x._sig
    real = x.numbers
    return real if real is not None else torch.zeros((), dtype=dtype).expand(size)
