"""Plain torch hooks for the tests of planted models: nothing here uses weft, so that they can contradict it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

Edit = Callable[[str, int, Tensor], None]
D_HEAD = 64

VARIANTS = {
    "plain": {},
    "rotated, with noise": {"rotate": True, "noise_heads": 2, "noise_layers": 1, "seed": 3},
    "llama": {"family": "llama"},
    "all": {"family": "llama", "grouped": True, "rotate": True, "noise_heads": 2, "noise_layers": 1, "seed": 5},
}
"""The options that every planted model takes, and what each is called here."""
OFTEN = ("plain", "all")
"""These are tried in each `make test`; the others, which are combined in "all", in `make test-all`."""


def marked(names: Iterable[Any]) -> list[Any]:
    """Parameters for pytest: names of variants, or pairs that end in one."""
    names = list(names)
    last = {name: name if isinstance(name, str) else name[-1] for name in names}
    return [pytest.param(name, marks=() if last[name] in OFTEN else pytest.mark.slow) for name in names]


def tokens(planted: Any, texts: list[str]) -> Tensor:
    ids = planted.tokenizer(texts, return_tensors="pt").input_ids
    assert not (ids == planted.tokenizer.unk_token_id).any(), "a word is not in the vocabulary"
    return ids


def run(planted: Any, ids: Tensor, edit: Edit | None = None) -> tuple[Tensor, dict[tuple[str, int], Tensor]]:
    """All logits, and what was seen by (kind, layer): "q" before rotary and "z" as [batch, pos, head, d], "resid" after
    the layer as [batch, pos, d]. `edit(kind, layer, value)` may change values in place."""
    model, seen, hooks = planted.model, {}, []
    n_heads = model.config.num_attention_heads

    def changed(kind: str, layer: int, value: Tensor) -> Tensor:
        value = value.clone()
        if edit is not None:
            edit(kind, layer, value if kind == "resid" else value.unflatten(-1, (n_heads, -1)))
        seen[kind, layer] = value if kind == "resid" else value.unflatten(-1, (n_heads, -1))
        return value

    def query(layer: int, width: int) -> Callable:
        def after(_: object, __: object, out: Tensor) -> Tensor:
            return torch.cat([changed("q", layer, out[..., :width]), out[..., width:]], -1)

        return after

    for layer, block in enumerate(model.transformer.h if hasattr(model, "transformer") else model.model.layers):
        gpt2 = hasattr(block, "attn")
        before_out = block.attn.c_proj if gpt2 else block.self_attn.o_proj
        makes_query = block.attn.c_attn if gpt2 else block.self_attn.q_proj
        hooks += [
            makes_query.register_forward_hook(query(layer, n_heads * D_HEAD)),
            before_out.register_forward_pre_hook(lambda _, args, at=layer: (changed("z", at, args[0]),)),
            block.register_forward_hook(lambda _, __, out, at=layer: changed("resid", at, out)),
        ]
    try:
        with torch.no_grad():
            logits = model(ids).logits
    finally:
        for hook in hooks:
            hook.remove()
    return logits, seen


def at_head(kind: str, at: tuple[int, int], where: Any, value: Tensor | float) -> Edit:
    """Sets a head's `kind` at position `where`, to a head's own value or to all heads' [batch, pos, head, d]."""

    def edit(seen: str, layer: int, into: Tensor) -> None:
        if (seen, layer) == (kind, at[0]):
            into[:, where, at[1]] = value[:, where, at[1]] if isinstance(value, Tensor) and value.ndim == 4 else value

    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(kind: str, layer: int, into: Tensor) -> None:
        for each in edits:
            each(kind, layer, into)

    return edit


def head_grid(planted: Any, score: Callable[[tuple[int, int]], float]) -> Tensor:
    """[layer, head]: `score((layer, head))` for every head."""
    truth = planted.truth
    return torch.tensor([[score((i, h)) for h in range(truth.n_heads)] for i in range(truth.n_layers)])


def only(planted: Any, *heads: tuple[int, int]) -> Tensor:
    """[layer, head]: 1 at these heads, 0 elsewhere."""
    return head_grid(planted, lambda at: float(at in heads))


def answers(planted: Any, logits: Tensor) -> list[str]:
    return [planted.tokenizer.decode(row.argmax()) for row in logits[:, -1]]


def share(found: list[str], expected: list[str]) -> float:
    """The fraction that agree."""
    return sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)
