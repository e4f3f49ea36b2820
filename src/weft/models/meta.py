"""What a model may ask of values that are not there, while only shapes go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class AllOnes(TorchFunctionMode):
    """Meanwhile one value of a meta tensor that Python asks for is true: models ask whether every token is a token
    (BioGPT, of the mask of ones that it makes itself), which in these runs they are."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in _ASKS and args[0].is_meta:
            return True
        return func(*args, **(kwargs or {}))


_ASKS = {torch.Tensor.item, torch.Tensor.__bool__}
