"""A model's modules watched as it runs on token ids, and run again with what some of them give changed.

watch = Watch(module)
seen = watch.run()                                        # what every module took and gave
seen = watch.run({"blocks.0.q": lambda x: 2 * x})         # with the output of one changed
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from weft.errors import ModelError
from weft.models.hooks import installed

Change = Callable[[torch.Tensor], torch.Tensor]
SHAPE = (2, 9)
"""Batch and positions; neither is a usual number of heads."""
LARGEST = 1 << 30
"""Parameters up to which a model is copied and its weights drawn anew: those of a new model hide what they multiply."""
CLOSE = 1e-4
"""Of the largest value: what is closer than this is the same."""


class _Enough(Exception):
    """A run has come to where it was to end."""


@dataclass
class Seen:
    """What a run showed, by module: the tensors that each took and gave at its first call, and the order of their ends."""

    taken: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    given: dict[str, list[torch.Tensor]] = field(default_factory=dict)
    logits: torch.Tensor | None = None

    def gave(self, path: str) -> torch.Tensor | None:
        """The first tensor that a module gave."""
        found = self.given.get(path)
        return found[0] if found else None

    def took(self, path: str, shape: torch.Size | None = None) -> torch.Tensor | None:
        """The first tensor that it took (of that shape)."""
        return next((each for each in self.taken.get(path, ()) if shape is None or each.shape == shape), None)


class Watch:
    """A model on a few random tokens. `module` is a copy of the user's with weights drawn anew, unless it is too large."""

    def __init__(self, module: nn.Module) -> None:
        self.original = module
        self.module, self.anew = _copied(module)
        takes = inspect.signature(module.forward).parameters
        self.transformers = "input_ids" in takes and hasattr(module, "config")
        tables = [each.num_embeddings for each in module.modules() if isinstance(each, nn.Embedding)]
        draw = torch.Generator().manual_seed(1)
        self.ids = torch.randint(2, max(min([*tables, 64]), 4), SHAPE, generator=draw)
        self.modules = dict(self.module.named_modules())

    def run(
        self, changes: Mapping[str, Change] | None = None, until: str = "", ids: torch.Tensor | None = None
    ) -> Seen:
        """One pass, with what the modules in `changes` give replaced; it ends with the module `until`."""
        seen, calls = Seen(), changes or {}

        def raw(path: str, name: str, call: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            if call:
                return {}
            changed = {}
            if name == "module.output" and path in calls:
                item = next(iter(tensors))
                changed = {item: calls[path](tensors[item])}
            kept = [changed.get(item, value).detach().clone() for item, value in tensors.items()]
            (seen.taken if name == "module.input" else seen.given)[path] = kept
            if name == "module.output" and path == until:
                raise _Enough
            return changed

        hooks = installed(self.module, None, {}, None, lambda site, value: None, raw)
        with contextlib.suppress(_Enough), torch.no_grad(), hooks:
            seen.logits = self._logits(self.ids if ids is None else ids)
        return seen

    def _logits(self, ids: torch.Tensor) -> torch.Tensor | None:
        first = next(self.module.parameters(), None)
        ids = ids if first is None else ids.to(first.device)
        out: Any = self.module(input_ids=ids, use_cache=False) if self.transformers else self.module(ids)
        out = getattr(out, "logits", out)
        out = out[0] if isinstance(out, tuple | list) else out
        return out.detach() if isinstance(out, torch.Tensor) else None

    def first(self) -> Seen:
        """The plain pass. ModelError where the model is none that takes tokens and gives logits of them."""
        kind = type(self.original).__name__
        try:
            seen = self.run()
        except Exception as error:
            raise ModelError(
                f"{kind} is no decoder that weft can look into: run on token ids {list(self.ids.shape)} it raised "
                f"{type(error).__name__}: {error}. Its modules are there by path: weft.load(model), run.module(path)"
            ) from error
        logits = seen.logits
        if logits is None or logits.dim() != 3 or logits.shape[:2] != self.ids.shape:
            got = "nothing like logits" if logits is None else f"{list(logits.shape)}"
            raise ModelError(
                f"{kind} is no decoder: of token ids {list(self.ids.shape)} it gives {got}, not [batch, pos, vocab]"
            )
        return seen

    def linear(self, seen: Seen, path: str) -> bool | None:
        """Whether a module is a projection: False where its weight is [out, in], True where it is [in, out], else None."""
        weight = getattr(self.modules[path], "weight", None)
        value, out = seen.took(path), seen.gave(path)
        if weight is None or weight.dim() != 2 or value is None or out is None or not value.is_floating_point():
            return None
        bias = getattr(self.modules[path], "bias", None)
        for stored, conv1d in ((weight.T, False), (weight, True)):
            if stored.shape == (value.shape[-1], out.shape[-1]):
                with torch.no_grad():
                    made = value.to(stored.dtype) @ stored
                if same(made if bias is None else made + bias, out):
                    return conv1d
        return None


def same(left: torch.Tensor | None, right: torch.Tensor | None, close: float = CLOSE) -> bool:
    """Whether two tensors have one shape and, as near as arithmetic goes, the same numbers."""
    if left is None or right is None or left.shape != right.shape:
        return False
    left, right = left.detach().double(), right.detach().double()
    return bool((left - right).abs().max() <= close * right.abs().max().clamp(min=1e-12))


def _copied(module: nn.Module) -> tuple[nn.Module, bool]:
    if sum(each.numel() for each in module.parameters()) > LARGEST:
        return module, False
    copied = copy.deepcopy(module).eval()
    if next((each.dtype for each in copied.parameters()), torch.float32) in (torch.float16, torch.bfloat16):
        copied = copied.float()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, each in copied.named_parameters():
            if not each.is_floating_point():
                continue
            noise = torch.randn(each.shape, generator=draw, dtype=torch.float64)
            gain = each.dim() == 1 and name.endswith("weight")
            scale = 0.3 if each.dim() < 2 else each.shape[-1] ** -0.5
            each.copy_(noise * scale + (1.0 if gain else 0.0))
    return copied, True
