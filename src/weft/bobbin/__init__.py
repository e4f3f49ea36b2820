"""The built-in trained model: a small Llama that has learned weft's tasks, with its recipe, weights and card.

model = weft.load("bobbin")
python -m weft.bobbin.train --out FOLDER               # make another one
python -m weft.bobbin.card FOLDER/model                # measure it: accuracies, mechanisms

`FOLDER` is as the hub has them, so any other tool loads it too: `AutoModelForCausalLM.from_pretrained(bobbin.FOLDER)`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "weights"
"""Weights, configuration, tokenizer and card (README.md)."""


def read(folder: Path = FOLDER) -> tuple[Any, Any]:
    """The model and its tokenizer, as transformers has them."""
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    model = LlamaForCausalLM.from_pretrained(folder, dtype="float32", use_safetensors=True)
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


def register() -> None:
    """Let `weft.models.load` find it by name; nothing is read before it is asked for."""
    from weft.models.load import register_builtin

    if (FOLDER / "model.safetensors").exists():
        register_builtin("bobbin", read)
