"""Attention in plain steps, so that its insides can be read and written.

transformers looks its attention function up by name; while something inside attention is tapped that name is "weft",
here. A mask function goes with it under the same name: without one, transformers drops padding and windows, silently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from weft.errors import ExecutionError

NAME = "weft"
Emit = Callable[[str, torch.Tensor], torch.Tensor | None]
"""`emit(site name, value)`: the value to go on with, or None where nobody changed it."""


@dataclass
class Seen:
    """One attention module while it is looked into: where its insides go, and the cache it was called with."""

    emit: Emit
    cache: Any = None


class Active(NamedTuple):
    """What one `tapped` context wants of attention, in its own thread."""

    config: Any
    original: str
    seen: dict[int, Seen]  # by id of the attention module


MaskFunction = Callable[..., torch.Tensor]
"""transformers' description of a mask: `visible(batch, head, query position, key position)`, elementwise."""
KeyBias = Callable[[torch.Tensor], torch.Tensor]
"""`bias(positions)`: what is added to the scores of keys at these positions, [head, *positions]."""


@dataclass(frozen=True, eq=False)
class Rule:
    """Stands for a mask while packed attention is under way: which keys a query sees, as a function of positions."""

    function: MaskFunction
    ndim = 0

    def to(self, *_: Any) -> Rule:
        """Itself: some models cast their mask before they hand it on."""
        return self

    @property
    def causal(self) -> bool:
        """Whether it is no more than that: no window, no chunks."""
        from transformers.masking_utils import causal_mask_function

        return self.function is causal_mask_function

    def visible(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """Booleans for positions that broadcast with each other."""
        none = torch.zeros((), dtype=torch.long, device=queries.device)
        return self.function(none, none, queries, keys)


class How(NamedTuple):
    """What a layer asks of attention, beside queries, keys and values. `rule` None: causal."""

    scale: float
    rule: Rule | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None  # head
    key_bias: KeyBias | None = None


PackedAttention = Callable[[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor, How], torch.Tensor]
"""`packed(module, q, k, v, how)`: attention of packed tokens, [1, head, token, d_head] to [1, token, head, d_head]."""


class _Local(threading.local):
    def __init__(self) -> None:
        self.active: list[Active] = []
        self.packed: PackedAttention | None = None


LOCAL = _Local()


def register() -> None:
    """Put weft's attention and mask functions into transformers' registries (again does no harm)."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, mask)


def original_of(config: Any) -> str:
    """The model's own attention, while weft's is in its place."""
    return next((each.original for each in LOCAL.active if each.config is config), "sdpa")


def mask(*args: Any, config: Any = None, **kwargs: Any) -> torch.Tensor | Rule | None:
    """An explicit mask, always: as numbers where the model's own attention is eager, else as booleans."""
    from transformers.masking_utils import eager_mask, sdpa_mask

    if LOCAL.packed is not None:
        if kwargs.get("use_vmap"):  # transformers' sign for a function that is not its own
            raise ExecutionError("its attention has a mask function of its own, which may look beyond positions")
        return Rule(kwargs["mask_function"])
    if original_of(config) == "eager":
        return eager_mask(*args, config=config, **kwargs)
    return sdpa_mask(*args, config=config, **{**kwargs, "allow_is_causal_skip": False})


def attention(
    module: nn.Module,
    query: torch.Tensor,  # batch head query_pos d_head
    key: torch.Tensor,  # batch kv_head key_pos d_head
    value: torch.Tensor,
    attention_mask: torch.Tensor | Rule | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    position_bias: torch.Tensor | None = None,
    s_aux: torch.Tensor | None = None,
    key_bias: KeyBias | None = None,
    through: Callable[[torch.Tensor], torch.Tensor] | None = None,
    repeated: int = 1,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attention as transformers' own functions compute it, with q_rot, k_rot, scores and pattern offered to taps.

    `s_aux` [head] are sinks: a score that each query has besides its keys', of which no value comes. `key_bias` is for
    packed tokens what `position_bias` is for others, where that hangs on the key's position alone. `through` is a module
    of the model's that the pattern goes through. `repeated`: how often each kv head comes, one after another, where the
    model repeats them itself; taps get each once.
    """
    if dropout:
        raise ExecutionError("weft's attention has no dropout; put the model in eval mode, or read sites outside it")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    active = next((each for each in reversed(LOCAL.active) if id(module) in each.seen), None)
    seen = active.seen[id(module)] if active else Seen(_nothing)
    emit = seen.emit
    if LOCAL.packed is not None:
        if position_bias is not None and key_bias is None:
            raise ExecutionError("packed attention has no bias between pairs of positions")
        if attention_mask is not None and not isinstance(attention_mask, Rule):
            raise ExecutionError("the model makes an attention mask of its own")
        if attention_mask is None and not getattr(module, "is_causal", True):
            raise ExecutionError("its attention is not causal")
        how = How(scale, attention_mask, softcap, s_aux, key_bias)
        value = _emit_values(emit, value, query.shape[2], None)
        z = LOCAL.packed(module, query, key[:, ::repeated], value[:, ::repeated], how)
        changed = emit("z", z)
        return z if changed is None else changed, None
    assert not isinstance(attention_mask, Rule)
    query = _emit_positions(emit, "q_rot", query)
    key = _emit_keys(emit, key, query.shape[2], seen.cache, module, repeated)
    value = _emit_values(emit, value, query.shape[2], seen.cache)
    scores = _grouped(query * scale, key.transpose(-1, -2))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if position_bias is not None:
        scores = scores + position_bias
    scores = _masked(scores, attention_mask, bool(getattr(module, "is_causal", True)))
    changed = emit("scores", scores)
    if changed is not None:
        _check_not_blocked(scores, changed)
        scores = changed
    pattern = _softmax(scores, s_aux).to(query.dtype)
    changed = emit("pattern", pattern)
    pattern = pattern if changed is None else changed
    pattern = through(pattern) if through else pattern
    z = _grouped(pattern, value).transpose(1, 2).contiguous()
    changed = emit("z", z)
    z = z if changed is None else changed
    return z, pattern if active is not None and active.original == "eager" else None


def _nothing(name: str, value: torch.Tensor) -> None:
    return None


def _emit_positions(emit: Emit, name: str, value: torch.Tensor) -> torch.Tensor:
    """Offer [batch, head, pos, d] as [batch, pos, head, d]."""
    changed = emit(name, value.transpose(1, 2))
    return value if changed is None else changed.transpose(1, 2)


def _emit_keys(emit: Emit, key: torch.Tensor, n_new: int, cache: Any, module: nn.Module, repeated: int) -> torch.Tensor:
    """Offer the keys of this pass's own positions; a change also goes into the cache, for the steps that follow."""
    n_old = key.shape[2] - n_new
    changed = emit("k_rot", key[:, ::repeated, n_old:].transpose(1, 2))
    if changed is None:
        return key
    new = changed.transpose(1, 2).repeat_interleave(repeated, dim=1)
    if cache is not None:
        layer = cache.layers[module.layer_idx]
        if layer.keys.shape[1] != new.shape[1] or layer.keys.shape[3] != new.shape[3]:
            raise ExecutionError(f"k_rot {_LATENT}")
        if type(layer).__name__ not in ("DynamicLayer", "DynamicSlidingWindowLayer"):
            raise ExecutionError(f"k_rot cannot be written with a {type(layer).__name__}; use a DynamicCache")
        kept = min(n_new, layer.keys.shape[2])
        stale = layer.keys.shape[2] - kept
        layer.keys = torch.cat([layer.keys[:, :, :stale], new[:, :, n_new - kept :]], dim=2)
    return torch.cat([key[:, :, :n_old], new], dim=2) if n_old else new


_LATENT = (
    "cannot be written while a cache is kept: the cache of this model holds a latent, of which keys and values are made anew "
    "at each step; write what makes the latent, module(path) of its norm"
)


def _emit_values(emit: Emit, value: torch.Tensor, n_new: int, cache: Any) -> torch.Tensor:
    """Offer the values of this pass's own positions, where a family has them here alone."""
    n_old = value.shape[2] - n_new
    changed = emit("v", value[:, :, n_old:].transpose(1, 2))
    if changed is None:
        return value
    if cache is not None:
        raise ExecutionError(f"v {_LATENT}")
    return changed.transpose(1, 2)


def _grouped(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left @ right` where each kv head of `right` serves its group of heads; nothing is repeated or padded."""
    batch, heads, rows, inner = left.shape
    kv_heads = right.shape[1]
    folded = left.reshape(batch, kv_heads, heads // kv_heads * rows, inner)
    return (folded @ right).view(batch, heads, rows, right.shape[-1])


def _masked(scores: torch.Tensor, given: torch.Tensor | None, is_causal: bool) -> torch.Tensor:
    n_query, n_key = scores.shape[-2:]
    if given is None:
        if not is_causal or n_query == 1:
            return scores
        ones = torch.ones(n_query, n_key, dtype=torch.bool, device=scores.device)
        given = ones.tril(diagonal=n_key - n_query)
    given = given[..., :n_key]
    if given.dtype == torch.bool:
        return scores.masked_fill(~given, float("-inf"))
    blocked = given <= torch.finfo(given.dtype).min / 2
    return (scores + given.masked_fill(blocked, 0.0)).masked_fill(blocked, float("-inf"))


def _check_not_blocked(before: torch.Tensor, after: torch.Tensor) -> None:
    """A row that a write blocked whole has no softmax; rows that the mask itself blocks are padding."""
    if after.is_meta:
        return
    blocked = after.isneginf().all(-1) & ~before.isneginf().all(-1)
    if bool(blocked.any()):
        row, head, query = (int(each) for each in blocked.nonzero()[0])
        raise ExecutionError(
            f"scores: every key of row {row}, head {head}, query position {query} is blocked (-inf); "
            "leave at least one, e.g. position 0, or set the pattern to zero instead",
        )


def _softmax(scores: torch.Tensor, sinks: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax over keys (in float32 for half precision); rows of padding, blocked whole by the mask, give zeros.

    Sinks take their share, so that with them rows sum to less than 1.
    """
    dtype = torch.float32 if scores.dtype in (torch.float16, torch.bfloat16) else scores.dtype
    if sinks is not None:
        column = sinks[:, None, None].expand(*scores.shape[:-1], 1)
        return torch.softmax(torch.cat([scores, column], -1), -1, dtype=dtype)[..., :-1]
    blocked = scores.isneginf().all(-1, keepdim=True)
    if scores.is_meta or not bool(blocked.any()):
        return torch.softmax(scores, -1, dtype=dtype)
    return torch.softmax(scores.masked_fill(blocked, 0.0), -1, dtype=dtype).masked_fill(blocked, 0.0)
