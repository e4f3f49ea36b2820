"""What a worker needs of a model, and the one that weft has.

    engine = load("gpt2", {"dtype": "float32"})
    record = engine.record(experiment, Ask())

A worker is told which loader to call by its dotted name ("weft.worker.engine:load"), so that another engine (a test's,
a remote one) takes the same place.
"""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from weft.errors import ExecutionError, ModelError
from weft.ir.card import Card
from weft.ir.limits import DEFAULT, Limits
from weft.ir.nodes import Experiment
from weft.ir.types import TensorType
from weft.record.format import Record
from weft.record.tensors import Value
from weft.worker.partial import Partial
from weft.worker.training import train


def _silent(fraction: float, stage: str) -> None:
    pass


def _unkept(name: str, value: Value) -> None:
    raise ExecutionError(f"there is no place here to keep {name!r} in")


def _untold(row: tuple[float, ...]) -> None:
    pass


@dataclass(frozen=True)
class Ask:
    """How an experiment is to be run: whom to tell how far it is, whom to ask whether it should stop, where to keep.

    `partial` is the file that holds what is known so far. Of a loop: whom to tell the rows of its history.
    """

    plan: str = "auto"
    limits: Limits = DEFAULT
    progress: Callable[[float, str], None] = _silent
    cancelled: Callable[[], bool] = bool
    keep: Callable[[str, Value], None] = _unkept
    metrics: Callable[[tuple[float, ...]], None] = _untold
    partial: str | None = None


Loader = Callable[[str, Mapping[str, str]], "Engine"]


class Engine(Protocol):
    """A model that can run experiments."""

    @property
    def card(self) -> Card: ...
    def fingerprint(self) -> dict[str, Any]: ...
    def record(self, experiment: Experiment, ask: Ask) -> Record: ...
    def free(self) -> None:
        """Give back the memory of the job that has just ended."""
        ...


@dataclass(frozen=True)
class ModelEngine:
    """A loaded model, run by weft.execute."""

    loaded: Any

    @property
    def card(self) -> Card:
        return self.loaded.card

    def fingerprint(self) -> dict[str, Any]:
        return dict(self.loaded.fingerprint())

    def record(self, experiment: Experiment, ask: Ask) -> Record:
        from weft.execute import run
        from weft.execute.loops import has_loop
        from weft.ir.check import check
        from weft.record.build import record_of, value

        started = time.time()
        card_for = None if self.card.kind == "decoder" else self._card_for
        check(experiment, self.card, ask.limits, card_for=card_for)
        if has_loop(experiment):
            return train(self.loaded, experiment, ask)
        with Partial(self.loaded, experiment, ask, started) as partial:
            outcome = run(
                self.loaded,
                experiment,
                plan=ask.plan,
                progress=ask.progress,
                cancelled=ask.cancelled,
                known=partial.add,
            )
        kept = {name: value(tensor) for name, tensor in outcome.kept.items()}
        for name, each in kept.items():
            ask.keep(name, each)
        return record_of(self.loaded, experiment, replace(outcome, kept=kept), started=started)

    def _card_for(self, types: Mapping[str, TensorType]) -> Card:
        """A raw module's sites are known once its inputs are."""
        return self.loaded.card_for(dict(types))

    def free(self) -> None:
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load(source: str, options: Mapping[str, str]) -> Engine:
    """The engine of a built-in model, a local folder or a hub id; options are those of `weft.load`."""
    from weft import models, planted

    planted.register()
    loaded = models.load(source, **dict[str, Any](options))
    loaded.check_weights()
    return ModelEngine(loaded)


def find_loader(name: str) -> Loader:
    """The function a dotted name `module:function` stands for."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"the loader {name!r} is not a function that can be imported ({error}); give module:function"
        ) from None
