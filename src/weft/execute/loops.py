"""Running a loop: a step is the body as an experiment of its own, then torch's optimiser.

    done = train(loaded, experiment, watch=watch)       # done.outcome.stopped: None, or the error that ended it early

What is learned is never lost: a loop that is cancelled, or whose loss is no number, gives an Outcome all the same, with
the values as they stood after the last whole step, and says in `stopped` why it ended. Its experiment is then that of
just the steps done, so that its record replays to the same numbers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch

from weft.errors import ExecutionError, JobCancelledError, WeftError
from weft.execute.constants import to_tensor
from weft.execute.reference import Progress, frozen
from weft.execute.steps import Given, Projection, Steps
from weft.execute.training import Optimiser, Patience
from weft.ir.loops import every, recorded
from weft.ir.nodes import Const, Experiment, Loop, Ref, Save
from weft.ir.outcome import Edits, Outcome

Values = tuple[torch.Tensor, ...]
"""A loop's outputs, in their order."""


class Trained(NamedTuple):
    """A loop that was run: what ran (all of it, or the steps that were done) and what came of it."""

    experiment: Experiment
    outcome: Outcome


class Watch(Protocol):
    """Whom to tell what a loop does."""

    def metrics(self, row: tuple[float, ...]) -> None:
        """A row of the history: the step, the loss, the metrics."""
        ...

    def step(self, done: int, partial: Callable[[], Trained]) -> None:
        """A step is done; `partial` gives what the steps so far came to."""
        ...


class Silent:
    """Nobody watches."""

    def metrics(self, row: tuple[float, ...]) -> None: ...
    def step(self, done: int, partial: Callable[[], Trained]) -> None: ...


def has_loop(experiment: Experiment) -> bool:
    """Whether an experiment is a loop."""
    return Loop in map(type, experiment.nodes)


def train(
    loaded: Any,
    experiment: Experiment,
    *,
    plan: str = "auto",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
    watch: Watch | None = None,
    resume: Mapping[str, torch.Tensor] | None = None,
) -> Trained:
    """Run the loop of an experiment. `resume` are the saved values of a part of it that was run before.

    A loop that fails before its first step is done raises its error: there is nothing to keep.
    """
    with frozen(loaded.module):
        training = Training(loaded, experiment, plan, resume)
        return training.run(progress or (lambda done, text: None), cancelled or (lambda: False), watch or Silent())


class Training:
    """One loop as it runs."""

    def __init__(
        self, loaded: Any, experiment: Experiment, plan: str, resume: Mapping[str, torch.Tensor] | None
    ) -> None:
        self.experiment, self.plan = experiment, plan
        self.index, self.loop = next((i, n) for i, n in enumerate(experiment.nodes) if isinstance(n, Loop))
        self.device = loaded.device
        held = self._resumed(resume) if resume else None
        count = len(self.loop.carried)
        first = [self._constant(ref) for ref in self.loop.carried] if held is None else list(held[:count])
        state = [self._constant(ref) for ref in self.loop.state] if held is None else list(held[count:-2])
        self.done = self.loop.start if held is None else int(held[-1])
        self.values = [each.detach().to(self.device).clone().requires_grad_() for each in first]
        self.optimiser = Optimiser(self.loop, self.values, state[:-1], self.done)
        self.patience = Patience(self.loop, state[-1] if state else None)
        self.rows: list[tuple[float, ...]] = [] if held is None else _rows(held[-2])
        self.last: tuple[float, ...] | None = self.rows[-1] if self.rows else None
        self.tables = [self._constant(ref) for ref in self.loop.tables]
        self.order = self._constant(self.loop.order[0]) if self.loop.order else None
        self.steps = Steps(loaded, self.loop, plan, self._recurs())
        self.project = Projection(loaded, self.loop)
        self.seconds = 0.0

    def run(self, progress: Progress, cancelled: Callable[[], bool], watch: Watch) -> Trained:
        started, stopped, loop = time.perf_counter(), None, self.loop
        ended = ""
        while self.done < loop.steps and not ended:
            if cancelled():
                stopped = JobCancelledError(
                    f"cancelled after {self.done} of {loop.steps} steps; what was learned is kept"
                )
                break
            try:
                row = self._step()
            except WeftError as error:
                stopped = self._failed(error)
                break
            ended = self.patience.over(row[1])
            self.seconds = time.perf_counter() - started
            if self.rows and self.rows[-1] is row:
                watch.metrics(row)
            progress(self.done / loop.steps, f"step {self.done} of {loop.steps}, loss {row[1]:.4g}")
            watch.step(self.done, self.partial)
        self.seconds = time.perf_counter() - started
        notes = (*self.steps.notes, *((f"ended early     {ended}",) if ended else ()))
        if stopped is None:
            return Trained(self.experiment, dataclasses.replace(self._outcome(loop.steps), notes=notes))
        if self.done == loop.start:
            raise stopped
        experiment, outcome = self.partial()
        return Trained(experiment, dataclasses.replace(outcome, notes=notes, stopped=stopped))

    def partial(self) -> Trained:
        """The steps done so far as an experiment of their own, and its outcome."""
        options = self.loop.options
        if "horizon" not in dict(options):
            options = (*options, ("horizon", self.loop.steps))
        loop = dataclasses.replace(self.loop, steps=self.done, options=options)
        nodes = tuple(loop if node is self.loop else node for node in self.experiment.nodes)
        experiment = Experiment(nodes, self.experiment.locations)
        return Trained(experiment, self._outcome(self.done))

    # -- a step ---

    def _step(self) -> tuple[float, ...]:
        """One step: the row of its loss and metrics, as they were before the values changed."""
        number = self.done
        numbers, gradients = self.steps.run(self._batch(number), self.values)
        if not torch.isfinite(numbers[0]):
            raise ExecutionError(
                f"the loss is {float(numbers[0])} at step {number}; a smaller lr or clip_norm may help"
            )
        for index, gradient in enumerate(gradients):
            if not bool(torch.isfinite(gradient).all()):
                raise ExecutionError(
                    f"the gradient at carried value {index} is not finite at step {number}", carried=index
                )
        self.optimiser.step(number, gradients)
        self.project(self.values)
        row = (float(number), *(float(each) for each in numbers))
        if number % every(self.loop) == 0 or number == self.loop.steps - 1:
            self.rows.append(row)
        self.done, self.last = number + 1, row
        return row

    def _batch(self, number: int) -> Given:
        if self.order is None:
            return Given(None, [])
        rows = self.order[number % self.order.shape[0]]
        return Given(tuple(rows.tolist()), [table[rows] for table in self.tables])

    def _recurs(self) -> bool:
        """Whether some batch comes more than once."""
        if self.order is None:
            return True
        left = self.loop.steps - self.done
        if left > len(self.order):
            return True
        used = self.order[torch.arange(self.done, self.loop.steps) % len(self.order)]
        return len(torch.unique(used, dim=0)) < left

    def _failed(self, error: WeftError) -> WeftError:
        if self.done == self.loop.start:
            return error
        kept = f"{error.message} (what was learned in {self.done} of {self.loop.steps} steps is kept)"
        return type(error)(kept, where=error.where, **{**error.details, "node": self.index, "step": self.done})

    # -- what came of it ---

    def _outcome(self, steps: int) -> Outcome:
        values = (*(each.detach().clone() for each in self.values), *self.optimiser.state())
        values += (self.patience.state(), self._history(steps), torch.tensor(self.done))
        saved = {n.name: values[n.value.out] for n in self.experiment.nodes if isinstance(n, Save)}
        edits = Edits(*(count * (self.done - self.loop.start) for count in self.steps.edits))
        return Outcome(saved, edits, dict(self.steps.work), self.seconds, self.plan_name)

    @property
    def plan_name(self) -> str:
        return "reference" if self.plan == "reference" else "planned"

    def _history(self, steps: int) -> torch.Tensor:
        rows = list(self.rows)
        if self.last is not None and (not rows or rows[-1] != self.last):
            rows.append(self.last)
        history = torch.full(
            (recorded(self.loop.start, steps, every(self.loop)), 1 + len(self.loop.results)), torch.nan
        )
        history = history.double()
        for index, row in enumerate(rows):
            history[index] = torch.tensor(row, dtype=torch.float64)
        return history

    def _constant(self, ref: Ref) -> torch.Tensor:
        node = self.experiment.nodes[ref.node]
        assert isinstance(node, Const)
        return to_tensor(node.data, torch.device("cpu"))

    def _resumed(self, saved: Mapping[str, torch.Tensor]) -> Values | None:
        """The outputs of the part that was run, or None where not all of them were saved."""
        place = {n.value.out: n.name for n in self.experiment.nodes if isinstance(n, Save)}
        count = max(place, default=-1) + 1
        if len(place) < count or any(name not in saved for name in place.values()):
            return None
        return tuple(saved[place[out]] for out in range(count))


def _rows(history: torch.Tensor) -> list[tuple[float, ...]]:
    return [tuple(row) for row in history.tolist() if row[0] == row[0]]
