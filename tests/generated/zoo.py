"""The tiny models that generated experiments run on, each built once a process."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from tests.cpu import family_zoo
from tests.tiny import tiny_gpt2, tiny_llama, tiny_mistral, tiny_qwen2
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import weft

FAMILIES = {"gpt2": tiny_gpt2, "llama": tiny_llama, "mistral": tiny_mistral, "qwen2": tiny_qwen2}
OTHERS = {kind: "eager" if row.eager else "sdpa" for kind, row in sorted(family_zoo.KINDS.items())}
"""Kinds of the family suite, each as it is built there, and the attention it is built with."""
VOCABULARY = 17
"""Words w00 … w16, which every tiny model has."""


class Which(NamedTuple):
    """One tiny model: the family, how many layers, the dtype, and transformers' attention."""

    family: str
    layers: int
    dtype: str
    attention: str = "sdpa"


@cache
def module_of(which: Which) -> Any:
    """The transformers model itself."""
    if which.family not in FAMILIES:
        return family_zoo.build(which.family, attention=which.attention).to(getattr(torch, which.dtype))
    layers = {"n_layer" if which.family == "gpt2" else "num_hidden_layers": which.layers}
    module = FAMILIES[which.family](7, which.attention, **layers).to(getattr(torch, which.dtype))
    return in_full(module) if which.dtype == "float64" else module


def in_full(module: Any) -> Any:
    """transformers' RMS norms compute in float32 whatever they are given, which hides differences below 1e-7: here they
    compute in the model's own dtype."""
    for path, each in list(module.named_modules()):
        if hasattr(each, "variance_epsilon"):
            parent, _, name = path.rpartition(".")
            setattr(module.get_submodule(parent), name, _Norm(each.weight, each.variance_epsilon))
    return module


class _Norm(torch.nn.Module):
    def __init__(self, weight: torch.nn.Parameter, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = weight, epsilon

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.weight * (hidden_states * torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.epsilon))


@cache
def model_of(which: Which) -> Any:
    """The weft model around it, with one token a word."""
    words = Tokenizer(models.WordLevel({f"w{i:02}": i for i in range(VOCABULARY)}, unk_token="w00"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w00", eos_token="w01", pad_token="w00")
    return weft.load(module_of(which), tokenizer=tokenizer)
