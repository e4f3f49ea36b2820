"""What training gave: the parameters as they were learned, the losses on the way, and how it ended."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import ExecutionError, FormatError, JobCancelledError, NotFoundError, ProgramError, WeftError
from weft.ir.nodes import Experiment, Loop, Save
from weft.ir.outcome import Outcome
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.trace.model import Model


@dataclass(frozen=True)
class Fit:
    """What `model.fit` gives.

    `params` are the learned values by name (your own tensors and modules hold them too). `history` is float64
    [rows, 1 + metrics]: the step, the loss before that step's change, the metrics; `loss` and `metrics[name]` are its
    columns. `steps` are done in all, those before `resume` included. `stopped` says why it ended early ("" if not).
    """

    params: dict[str, torch.Tensor]
    history: torch.Tensor
    names: tuple[str, ...]
    steps: int
    state: tuple[torch.Tensor, ...]
    outcome: Outcome
    experiment: Experiment
    model: Any = None
    stopped: str = ""

    @staticmethod
    def made(
        model: Model, experiment: Experiment, outcome: Outcome, params: list[str], names: list[str], start: Fit | None
    ) -> Fit:
        """The fit of an outcome."""
        values = outcome.values
        history = values["_history"]
        history = history[~history[:, 0].isnan()]
        if start is not None:
            history = torch.cat([start.history, history])
        done, steps = int(values["_done"]), next(n.steps for n in experiment.nodes if isinstance(n, Loop))
        stopped = "" if outcome.stopped is None else outcome.stopped.message
        if not stopped and done < steps:
            stopped = f"ended early, after {done} of {steps} steps, as `below` or `patience` asked"
        return Fit(
            {name: values[name] for name in params},
            history,
            tuple(names),
            done,
            _state(values),
            outcome,
            experiment,
            model,
            stopped,
        )

    @property
    def loss(self) -> torch.Tensor:
        """The loss of each recorded step, float64 [rows]."""
        return self.history[:, 1]

    @property
    def metrics(self) -> dict[str, torch.Tensor]:
        """The loss and each metric by name, float64 [rows]."""
        return {name: self.history[:, 1 + index] for index, name in enumerate(self.names)}

    @property
    def record(self) -> Any:
        """What ran, on what, giving what: a record that can be saved, replayed and resumed from."""
        return self.model.backend.record(self.experiment, self.outcome)

    def save(self, path: str | Path) -> Path:
        """Write its record, from which `model.fit(…, resume=path)` goes on."""
        return self.record.save(path)

    def __repr__(self) -> str:
        last = f", loss {float(self.loss[-1]):.4g}" if len(self.history) else ""
        ended = f", {self.stopped}" if self.stopped else ""
        return f"<Fit: {self.steps} steps{last}{ended}; {', '.join(self.params)}>"

    # -- going on ---

    @staticmethod
    def of(model: Model, source: Any) -> Fit:
        """A fit, a record of one, or the file of a record."""
        if isinstance(source, Fit):
            return source
        experiment, outcome = model.backend.earlier(source)
        if "_done" not in outcome.values:
            raise FormatError("this record is of no fit, so there is nothing to go on with", where=where())
        columns = ["loss", *(f"metric {n}" for n in range(1, outcome.values["_history"].shape[1] - 1))]
        return Fit.made(model, experiment, outcome, _in_order(experiment, outcome.values), columns, None)

    def check_fits(self, learned: dict[str, torch.Tensor]) -> None:
        """ProgramError unless these are the parameters that were learned."""
        then = {name: (value.dtype, tuple(value.shape)) for name, value in self.params.items()}
        now = {name: (value.dtype, tuple(value.shape)) for name, value in learned.items()}
        if then != now or list(then) != list(now):
            raise ProgramError(
                f"what is resumed learned {_shown(then)}; these parameters are {_shown(now)}", where=where()
            )

    def give_back(self, learned: dict[str, torch.Tensor]) -> None:
        """Put what was learned into the user's own tensors."""
        with torch.no_grad():
            for name, tensor in learned.items():
                tensor.copy_(self.params[name])

    def ended(self, error: WeftError) -> None:
        """Say that it ended early: a warning where that was asked for, else the error, with this fit as its `fit`."""
        if isinstance(error, JobCancelledError):
            warnings.warn(f"fit was stopped: {error.message}", stacklevel=4)
            return
        error.fit = self  # type: ignore[attr-defined]
        raise error


class Watcher:
    """Passes on what a loop says on its way: metrics to the user's function, and a checkpoint now and then."""

    def __init__(
        self, names: list[str], steps: int, told: Callable[[dict[str, float]], None] | None, checkpoint: Path | None
    ) -> None:
        self.names, self.told, self.path = names, told, checkpoint
        self.apart = max(1, steps // 10)
        self.next, self.last = float(self.apart), -1.0
        self.record: Callable[[Experiment, Outcome], Any] | None = None  # of a loop in this process
        self.fetch: Callable[[], Any] | None = None  # the record of a job's steps so far

    def metrics(self, row: tuple[float, ...]) -> None:
        if row[0] <= self.last:  # told before: a job that was waited for anew tells from the beginning
            return
        self.last = row[0]
        if self.path is not None and self.fetch is not None and row[0] >= self.next:
            self.next = row[0] + self.apart
            with contextlib.suppress(NotFoundError):  # the server has written none yet
                self._now_and_then(self.fetch())
        if self.told is not None:
            self.told({"step": row[0], **dict(zip(self.names, row[1:], strict=True))})

    def step(self, done: int, partial: Callable[[], tuple[Experiment, Outcome]]) -> None:
        if self.path is not None and self.record is not None and done % self.apart == 0:
            self._now_and_then(self.record(*partial()))

    def finish(self, fit: Fit) -> None:
        """The last checkpoint, with everything; ExecutionError, with the fit, where it cannot be written."""
        if self.path is None or not fit.steps:
            return
        try:
            self._write(fit.record)
        except OSError as error:
            failed = ExecutionError(
                f"the checkpoint {self.path} cannot be written ({error}); your tensors hold what was learned"
            )
            failed.fit = fit  # type: ignore[attr-defined]
            raise failed from None

    def _now_and_then(self, record: Any) -> None:
        """A checkpoint on the way, whose loss is no reason to lose the training too."""
        try:
            self._write(record)
        except OSError as error:
            warnings.warn(f"the checkpoint {self.path} cannot be written ({error}); training goes on", stacklevel=2)

    def _write(self, record: Any) -> None:
        assert self.path is not None
        beside = self.path.with_name(self.path.name + ".part")
        try:
            record.save(beside)
            os.replace(beside, self.path)  # a kill in between leaves the checkpoint before
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise


def _state(values: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    count = sum(name.startswith("_state.") for name in values)
    return (*(values[f"_state.{n}"] for n in range(count)), values["_watch"])


def _in_order(experiment: Experiment, values: Mapping[str, Any]) -> list[str]:
    """The names of the parameters, as they were given."""
    saved = {node.name: node.value.out for node in experiment.nodes if isinstance(node, Save)}
    return sorted((name for name in values if not name.startswith("_")), key=lambda name: saved[name])


def _shown(kinds: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {list(shape)}" for name, (_, shape) in kinds.items())


__all__ = ["Fit", "Watcher"]
