"""A small Llama trained on weft's tasks: its weights, its recipe, and how what it has learned is measured.

model = weft.load("bobbin")                            # the one in the package; its card is weights/README.md
python -m weft.bobbin.train --out FOLDER               # train another; --resume goes on
python -m weft.bobbin.card FOLDER/model                # measure it: accuracies, mechanisms
model = weft.load("FOLDER/model")                      # a folder as the hub has them: any other tool loads it too
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
        register_builtin("bobbin", lambda: read(FOLDER))
