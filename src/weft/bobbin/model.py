"""Bobbin's shape: a Llama-class model, so that any tool that knows Llama loads it.

model = make(vocabulary=2020, end=1, seed=0)           # a transformers LlamaForCausalLM with random weights
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Size(NamedTuple):
    """Layers, heads, widths of stream, MLP and head. The default gives every step of a mechanism heads of its own."""

    layers: int = 8
    heads: int = 4
    width: int = 128
    mlp: int = 256
    d_head: int = 32


BOBBIN = Size()
TINY = Size(layers=2, heads=2, width=16, mlp=32, d_head=8)
"""For trying the recipe out in seconds; learns nothing of use."""


def make(vocabulary: int, end: int = 1, seed: int = 0, size: Size = BOBBIN) -> Any:
    """A model to be trained, its input and output embeddings one matrix. `end` is the token after which a text is over."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=size.width, intermediate_size=size.mlp, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.heads, head_dim=size.d_head, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=end, pad_token_id=None, initializer_range=0.02,
        dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
