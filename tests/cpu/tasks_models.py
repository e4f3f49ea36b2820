"""Models to put tasks to: tiny and random, with a tokenizer that has the tasks' words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tests.tiny import tiny_gpt2
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import weft

SPLIT = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]|\s"


def word_tokenizer(prompts: Iterable[str]) -> PreTrainedTokenizerFast:
    """One token a word with its leading space, for every word of these texts."""
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    words = dict.fromkeys(piece for text in prompts for piece, _ in split.pre_tokenize_str(text))
    tokenizer = Tokenizer(models.WordLevel({each: i for i, each in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False, pad_token="<unk>"
    )


def random_model(tokenizer: Any, seed: int = 0) -> weft.Model:
    """A tiny GPT-2 with random weights for that tokenizer's vocabulary."""
    with torch.random.fork_rng(devices=[]):
        return weft.load(tiny_gpt2(seed, vocab_size=len(tokenizer), n_positions=512), tokenizer=tokenizer)
