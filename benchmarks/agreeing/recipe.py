"""Where a site is found by the names that modules have: what one writes by hand, not weft's tables.

A reading is taken at face value: a projection of q, k and v is cut into three, attention's output is what it adds. Where
that is wrong for a family, the identity says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

ATTENTION = ("self_attn", "attn.attention", "attn", "attention", "self_attention", "multi_head_attention")
MLP = ("mlp", "block_sparse_moe", "feed_forward", "ffn", "feedforward", "moe")
QUERIES = ("q_proj", "Wq", "query")
KEYS = ("k_proj", "Wk", "key")
VALUES = ("v_proj", "Wv", "value")
PACKED = ("c_attn", "query_key_value", "qkv_proj", "Wqkv")
OUT = ("o_proj", "out_proj", "c_proj", "dense", "attention.dense")
DOWN = ("down_proj", "c_proj", "fc_out", "dense_4h_to_h", "fc2", "2", "w2")
ACTIVATION = ("act_fn", "act", "activation_fn", "gelu_impl", "1")
SECOND_NORM = ("pre_feedforward_layernorm", "post_attention_layernorm", "ln_2", "norm_2", "layernorm2", "ffn_norm",
               "final_layer_norm", "pre_mlp_layernorm")  # fmt: skip
LAST_NORM = (
    "norm",
    "ln_f",
    "final_layer_norm",
    "final_layernorm",
    "norm_f",
    "layer_norm",
    "layernorm",
    "embedding_norm",
)
ROUTER = ("gate", "router")


class Reading(NamedTuple):
    """A module's first input ("in") or its output ("out"), and what is done with it."""

    site: str
    layer: int | None
    path: str
    side: str
    shaped: str = ""  # "heads", "q", "k", "v" of three, "pattern"

    @property
    def key(self) -> str:
        return self.site if self.layer is None else f"{self.site}.{self.layer}"


def layers_path(module: nn.Module) -> str:
    """The path of the list of layers."""
    count = int(module.config.num_hidden_layers)
    return next(path for path, each in module.named_modules() if isinstance(each, nn.ModuleList) and len(each) == count)


def named(module: nn.Module, names: tuple[str, ...]) -> str:
    """The first of these paths that the module has; "" if none."""
    there = {path for path, _ in module.named_modules()}
    return next((name for name in names if name in there), "")


def readings(module: nn.Module) -> list[Reading]:
    """Every site that a name is known for."""
    layers = layers_path(module)
    base = layers.rpartition(".")[0]
    final = named(module.get_submodule(base), LAST_NORM)
    found = [Reading("embed", None, f"{layers}.0", "in")]
    for layer, each in enumerate(module.get_submodule(layers)):
        found += [item._replace(layer=layer, path=f"{layers}.{layer}.{item.path}".rstrip(".")) for item in _layer(each)]
    if final:
        found.append(Reading("final_norm", None, ".".join(filter(None, (base, final))), "out"))
    return [*found, Reading("logits", None, "", "out")]


def _layer(layer: nn.Module) -> Iterator[Reading]:
    attention, mlp, second = named(layer, ATTENTION), named(layer, MLP), named(layer, SECOND_NORM)
    if attention:
        yield from _attention(layer.get_submodule(attention), attention)
    if second:
        yield Reading("resid_mid", None, second, "in")
    if mlp:
        inner = layer.get_submodule(mlp)
        down, act = named(inner, DOWN), named(inner, ACTIVATION)
        if down and act:
            yield Reading("mlp_pre", None, f"{mlp}.{act}", "in")
            yield Reading("mlp_post", None, f"{mlp}.{down}", "in")
        elif router := named(inner, ROUTER):
            yield Reading("router_logits", None, f"{mlp}.{router}", "out")
        yield Reading("mlp_out", None, mlp, "out")
    elif (down := named(layer, DOWN)) and (act := named(layer, ACTIVATION)):
        yield Reading("mlp_pre", None, act, "in")
        yield Reading("mlp_post", None, down, "in")
        yield Reading("mlp_out", None, down, "out")
    yield Reading("resid_post", None, "", "out")


def _attention(attention: nn.Module, path: str) -> Iterator[Reading]:
    packed = named(attention, PACKED)
    for site, names in (("q", QUERIES), ("k", KEYS), ("v", VALUES)):
        if name := named(attention, names):
            normed = named(attention, (f"{site}_norm", f"{site}_layernorm"))
            yield Reading(site, None, f"{path}.{normed or name}", "out", "heads")
        elif packed:
            yield Reading(site, None, f"{path}.{packed}", "out", site)
    if out := named(attention, OUT):
        yield Reading("z", None, f"{path}.{out}", "in", "heads")
    yield Reading("pattern", None, path, "out", "pattern")
    yield Reading("attn_out", None, path, "out")


def shaped(reading: Reading, value: object, config: object) -> torch.Tensor | None:
    """What was read, in the site's layout; None where it is nothing of the kind."""
    if reading.shaped == "pattern":
        weights = value[1] if isinstance(value, tuple) and len(value) > 1 else None
        return weights if isinstance(weights, torch.Tensor) and weights.dim() == 4 else None
    if hasattr(value, "logits"):
        value = value.logits
    first = value[0] if isinstance(value, tuple | list) and value else value
    if not isinstance(first, torch.Tensor):
        return None
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    if reading.shaped == "heads":
        return first.unflatten(-1, (-1, width)) if first.dim() == 3 and first.shape[-1] % width == 0 else first
    if reading.shaped:  # q, then k, then v: as many columns of each as the whole allows
        kv = (first.shape[-1] // width - heads) // 2
        sides = first.unflatten(-1, (-1, width)).split([heads, kv, kv], dim=-2)
        return sides["qkv".index(reading.shaped)]
    return first
