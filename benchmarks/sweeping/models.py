"""Random models of well-known shapes, built from their configurations: nothing is downloaded.

The same seed gives the same weights in every process, so contestants in different processes run the same model.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

SEED = 0
SPREAD = 0.05
"""Standard deviation of the weights: at the usual 0.02 patches move so little that a lost one would hardly show."""


class Shape(NamedTuple):
    """The sizes that tasks, counted limits and rivals need, and where a family keeps its parts."""

    name: str
    family: str
    layers: int
    heads: int
    kv_heads: int
    width: int
    mlp: int
    vocabulary: int
    positions: int = 1024

    @property
    def d_head(self) -> int:
        return self.width // self.heads

    @property
    def blocks(self) -> str:
        return "transformer.h" if self.family == "gpt2" else "model.layers"

    @property
    def attention(self) -> str:
        return "attn" if self.family == "gpt2" else "self_attn"

    @property
    def projection(self) -> str:
        """The module whose input is every head's z, side by side."""
        return "attn.c_proj" if self.family == "gpt2" else "self_attn.o_proj"

    @property
    def final_norm(self) -> str:
        return "transformer.ln_f" if self.family == "gpt2" else "model.norm"


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("gpt2", "gpt2", 12, 12, 12, 768, 3072, 50257),
        Shape("llama", "llama", 16, 16, 4, 1024, 2816, 32000),
        Shape("tiny", "gpt2", 2, 4, 4, 64, 256, 512),
        Shape("tiny-words", "gpt2", 2, 4, 4, 64, 256, 2048),
        Shape("tiny-llama", "llama", 2, 4, 2, 64, 160, 512),
    )
}


def build(name: str) -> torch.nn.Module:
    """A new model of that shape, float32, in eval mode."""
    shape = SHAPES[name]
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return (_gpt2 if shape.family == "gpt2" else _llama)(shape).eval()


@cache
def shared(name: str) -> torch.nn.Module:
    """The one model of that shape that the contestants of this process share."""
    return build(name)


def part(model: torch.nn.Module, path: str) -> torch.nn.Module:
    return model.get_submodule(path)


def block(model: torch.nn.Module, shape: Shape, layer: int, inside: str = "") -> torch.nn.Module:
    return model.get_submodule(f"{shape.blocks}.{layer}" + (f".{inside}" if inside else ""))


@cache
def tokenizer(vocabulary: int):
    """A word for each id ("w17"), so that tools which want a tokenizer have one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(vocabulary)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="w0", pad_token="w0", unk_token="w0", padding_side="left"
    )


def _gpt2(shape: Shape) -> torch.nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.width,
        n_inner=shape.mlp,
        vocab_size=shape.vocabulary,
        n_positions=shape.positions,
        initializer_range=SPREAD,
        bos_token_id=0,
        eos_token_id=0,
    )
    return _endless(GPT2LMHeadModel(config))


def _llama(shape: Shape) -> torch.nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.positions,
        initializer_range=SPREAD,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=False,
    )
    return _endless(LlamaForCausalLM(config))


def _endless(model: torch.nn.Module) -> torch.nn.Module:
    """No token ends a generation: every contestant decodes as many steps."""
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model
