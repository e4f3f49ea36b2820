"""Where an experiment is run: what a model of this process and a model of a server have in common."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from weft.ir.card import Card
from weft.ir.nodes import Experiment
from weft.ir.outcome import Outcome
from weft.ir.types import TensorType
from weft.models.tokens import Tokens


class Backend(Protocol):
    """Runs experiments on one model. `submit` returns a job and does not wait; only a server has it."""

    @property
    def card(self) -> Card: ...
    @property
    def tokens(self) -> Tokens | None: ...
    def card_for(self, types: dict[str, TensorType]) -> Card: ...
    def run(self, experiment: Experiment, *, plan: str = "auto", fresh: bool = False) -> Outcome: ...
    def submit(self, experiment: Experiment, *, fresh: bool = False) -> Any: ...
    def record(self, experiment: Experiment, outcome: Outcome | None) -> Any: ...
    def param(self, name: str) -> torch.Tensor: ...
    def apply(self, part: str, value: torch.Tensor) -> torch.Tensor: ...
