"""A real engine whose model, come to the tokens 4, 5, 6, waits for somebody to write to the named pipe `gate`, or fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.tiny import tiny_gpt2

from weft import models
from weft.worker.engine import ModelEngine


def held(at: list[list[int]], what: Callable[[], Any]) -> ModelEngine:
    """An engine that does `what` when its model is given these tokens."""
    loaded = models.load(tiny_gpt2(1))

    def hold(module: Any, args: Any, given: dict[str, Any]) -> None:
        tokens = given["input_ids"]
        if tokens.device.type != "meta" and tokens.tolist() == at:  # weft looks at a model with no numbers first
            what()

    loaded.module.register_forward_pre_hook(hold, with_kwargs=True)
    return ModelEngine(loaded)


def load(source: str, options: Mapping[str, str]) -> ModelEngine:
    def wait() -> None:
        if Path(options["gate"]).read_bytes() == b"fail":
            raise RuntimeError("a cable was pulled")

    return held([[4, 5, 6]], wait)
