"""Tiny random checkpoints of every model type, each saved to a folder with a tokenizer of its own.

They are the models of weft's tests: every weight, gain, bias and multiplier is random.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]


def makers() -> dict[str, Callable[[], torch.nn.Module]]:
    """By model type (with a variant after a comma), what makes its model."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "cpu")]
    import experts_zoo
    import family_zoo

    rows = {**family_zoo.KINDS, **experts_zoo.EXPERTS, **experts_zoo.OTHERS}
    return {kind: partial(family_zoo.build, kind) for kind in rows}


def save(kind: str, make: Callable[[], torch.nn.Module], folder: Path) -> Path:
    """Make a model and save it below `folder`; its own folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    where = folder / kind.replace(", ", "--").replace(" ", "-")
    module = make()
    module.save_pretrained(where)
    size = int(module.config.vocab_size)
    words = Tokenizer(models.WordLevel({f"t{number}": number for number in range(size)}, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = {"unk_token": "t0", "bos_token": "t0", "eos_token": "t1", "pad_token": "t0"}
    PreTrainedTokenizerFast(tokenizer_object=words, **tokens).save_pretrained(where)
    return where


def prompts(vocabulary: int) -> torch.Tensor:
    """Two rows of seven token ids: longer than any window of these models."""
    return torch.randint(2, vocabulary, (2, 7), generator=torch.Generator().manual_seed(1))


def opened(folder: Path) -> torch.nn.Module:
    """The checkpoint by transformers, in float32, with eager attention where it has it."""
    import transformers

    kind: Any = transformers.AutoModelForCausalLM
    config = transformers.AutoConfig.from_pretrained(folder)
    if type(config) not in kind._model_mapping:
        kind = getattr(transformers, config.architectures[0])
    options = {"dtype": torch.float32}
    try:
        module = kind.from_pretrained(folder, attn_implementation="eager", **options)
    except ValueError:
        module = kind.from_pretrained(folder, **options)
    if getattr(module.config, "_experts_implementation", None):
        module.config._experts_implementation = "eager"
    return module.eval()
