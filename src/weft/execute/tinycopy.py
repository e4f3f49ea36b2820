"""A small random model of a model's own class, whose configuration is the same in everything but size."""

from __future__ import annotations

import copy
from typing import Any

import torch

WINDOW = 4
"""Windows and chunks of the copy: shorter than the prompts that it is tried on."""
LAYERS = 3
UNTIL, LONGEST = "original_max_position_embeddings", 64
"""Beyond the one positions rotary angles may change with a row's length; the copy's rows are shorter than the other. Rows
that are longer are not planned at all."""

_SIZES = {
    "hidden_size": 32, "num_attention_heads": 4, "head_dim": 8, "intermediate_size": 48, "n_inner": 48,
    "vocab_size": 23, "ffn_dim": 48, "dff": 48, "ffn_hidden_size": 48, "word_embed_proj_dim": 32,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip


def tiny_copy(loaded: Any) -> Any:
    """The copy, loaded. Layers of every type that the model has are there, each change of type among them."""
    from weft.models import load

    config = small_config(loaded.module.config, loaded.card.sizes)
    attention = config._attn_implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = type(loaded.module)(config).eval()
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.3)
    module.config._attn_implementation = attention
    return load(module, name="tiny copy")


def small_config(config: Any, sizes: dict[str, int]) -> Any:
    """The configuration of the copy."""
    small = copy.deepcopy(config)
    kinds = kinds_of(config)
    wanted: dict[str, Any] = {
        **_SIZES,
        "num_hidden_layers": max(LAYERS, len(kinds)),
        **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2 if sizes["n_kv_heads"] != sizes["n_heads"] else 4),
    }
    if kinds:
        wanted["layer_types"] = (kinds * LAYERS)[: wanted["num_hidden_layers"]] if len(kinds) == 1 else kinds
        wanted["num_hidden_layers"] = len(wanted["layer_types"])
    for name in ("sliding_window", "attention_chunk_size", "window_size"):
        if isinstance(getattr(config, name, None), int):
            wanted[name] = WINDOW
    if isinstance(getattr(config, "rotary_dim", None), int):
        wanted["rotary_dim"] = 4
    wanted |= _with_experts(config)
    for name, value in wanted.items():
        if hasattr(small, name):
            _set(small, name, value)
    if isinstance(getattr(small, UNTIL, None), int):
        setattr(small, UNTIL, max(getattr(small, UNTIL), LONGEST))
    for name in ("rope_parameters", "rope_scaling"):
        if isinstance(rope := vars(small).get(name), dict):  # vars: asking for a deprecated name warns
            setattr(small, name, _fitted(rope))
    return small


def _set(config: Any, name: str, value: Any) -> None:
    """Some configurations compute a size of the others, and some must have a beginning token."""
    if isinstance(getattr(type(config), name, None), property):
        return
    try:
        setattr(config, name, value)
    except Exception:  # transformers' own, for a field that may not be None
        if value is not None:
            raise
        setattr(config, name, 0)


def _with_experts(config: Any) -> dict[str, Any]:
    """Small experts, and some in a copy of few layers. What begins to hang on positions only far on begins early."""
    ints = {name: value for name, value in vars(config).items() if type(value) is int}
    widths = (
        *("moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp"),
        *("q_lora_rank", "kv_lora_rank"),
    )
    found = {name: 16 for name in widths if ints.get(name)}
    dense = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
    found |= {name: 1 for name in dense if ints.get(name, 0) > 1}
    if "qk_rope_head_dim" in ints:  # of latent attention, whose heads have sizes of their own
        found["head_dim"] = ints["qk_rope_head_dim"]
    if "floor_scale" in ints:
        found["floor_scale"] = WINDOW // 2
    return found


def kinds_of(config: Any) -> list[str]:
    """The types of a model's layers, those alike that follow one another once: each type, each change between two, and
    at least three layers."""
    kinds = list(getattr(config, "layer_types", None) or ())
    found: list[str] = []
    changes: set[tuple[str, str]] = set()
    for kind in kinds:
        if not found or (kind != found[-1] and (found[-1], kind) not in changes):
            changes.add((found[-1], kind) if found else (kind, kind))
            found.append(kind)
    return [*found, found[-1]] if len(found) == 2 else found


def _fitted(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters that are listed angle by angle, as many as the copy's heads have."""
    angles = 4 if rope.get("partial_rotary_factor") is None else int(4 * rope["partial_rotary_factor"])

    def fit(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _fitted(value)
        if name == UNTIL and isinstance(value, int):
            return max(value, LONGEST)
        return (value * angles)[:angles] if isinstance(value, list) and value else value

    return {name: fit(name, value) for name, value in rope.items()}
