"""What running an experiment gives back, wherever it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from weft.errors import WeftError
from weft.ir.nodes import ConstantData


class Edits(NamedTuple):
    """Edits asked for, applied, and proven without effect on anything read. The first is the sum of the others."""

    asked: int
    applied: int
    without_effect: int


@dataclass(frozen=True)
class Kept:
    """A value that stays where the model is, under a name. Seconds since the epoch; `expires` None: it does not."""

    name: str
    data: ConstantData
    created: float
    expires: float | None = None


@dataclass(frozen=True)
class Outcome:
    """The saved values by name (tensors), the edits counted, the work done and how long it took.

    `work` counts runs, passes (forward passes made), rows, layer_tokens_asked and layer_tokens_done. `notes` say what
    the plan did, and which runs it could not help. `record` is there already where a server has written it. `stopped`
    is the error that ended a loop before its last step: the values are what it had learned by then. `kept` are the
    values that stay where the model is: tensors, or what is known of them.
    """

    values: Mapping[str, Any]
    edits: Edits
    work: Mapping[str, int | float] = field(default_factory=dict[str, int | float])
    seconds: float = 0.0
    plan: str = "reference"
    notes: tuple[str, ...] = ()
    record: Any = None
    kept: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stopped: WeftError | None = None
