"""A model of which only the configuration is here: every shape, and not one number.

load("a/folder/without/weights"), load("org/name", weights=False)

What is loaded can be traced against, checked and planned; it cannot be run, and says what is missing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

SHAPELY = "batched_mm"
"""The one way of computing experts whose shapes do not hang on values."""
_WEIGHTS = ("safetensors", "bin", "pt", "pth", "h5", "msgpack", "gguf", "index.json")


@contextmanager
def uncollected() -> Iterator[None]:
    """Meanwhile memory is not searched for what is no longer used: with millions of small things in it, that takes longer
    than what is done with them."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def lacks_weights(where: str) -> bool:
    """Whether `where` is a folder with a configuration and no file of weights, of whatever kind."""
    folder = Path(where)
    if not (folder / "config.json").is_file():
        return False
    return not any(name.name.endswith(f".{kind}") for name in folder.iterdir() for kind in _WEIGHTS)


def of_configuration(where: str, dtype: torch.dtype | None, revision: str | None) -> nn.Module:
    """The model that a configuration describes, its tensors on the meta device. OSError or ValueError where none is."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config: Any = AutoConfig.from_pretrained(where, revision=revision or "main")
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config, dtype=dtype or config.dtype or torch.float32).eval()
    module.config._experts_implementation = SHAPELY
    return module


def missing(where: str, asked: bool) -> str:
    """What a model without weights says when it is asked for a number."""
    folder = Path(where)
    if asked:
        why, fix = f"it was loaded from {where!r} with weights=False", "load it without weights=False"
    elif folder.is_dir():
        why = f"{folder} has a config.json and no weights"
        fix = "put its *.safetensors files there and load it again"
    else:
        why, fix = f"of {where!r} only the configuration was loaded", "load its weights"
    return (
        f"{why}. Experiments on it can be written, checked and explained: with model.session(run=False) as s: …, then "
        f"s.explain(). To run them, {fix}, or send them to a server that holds the model: "
        'weft.connect(url).submit("its name there", s.experiment)'
    )
