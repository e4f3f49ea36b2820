"""An experiment within a budget of memory: some rows at a time, where its rows can be kept apart.

What goes by rows is run slice by slice, and its values are put together; what mixes rows waits for all of them and is
run afterwards, with those values as constants, by rows again if it can be. So a program becomes programs, and each of
them is run as any other (`weft.plan.rowwise` finds what goes by rows, `weft.plan.slices` makes the programs,
`weft.plan.memory` says how many rows fit).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import torch

from weft.errors import ExecutionError, GradientError, LimitError, WeftError
from weft.execute.allocator import return_at_once, sweep_up
from weft.ir.check import check
from weft.ir.constant import digest_of
from weft.ir.limits import UNLIMITED
from weft.ir.nodes import Apply, Const, Experiment, Grad, Op, Param, Read, Ref, Run, Save, Site, Update, Write
from weft.ir.outcome import Edits, Outcome
from weft.models.dtypes import type_of
from weft.plan.memory import SHARE, Limits, at_most, estimate, within
from weft.plan.parts import Part, graph_of, ordered, part
from weft.plan.rowwise import ROWS, Rowwise, rowwise
from weft.plan.slices import name_of, rows_of

Progress = Callable[[float, str], None]
Whole = Callable[[Experiment, Limits, Progress, set[int]], Outcome]
"""Runs a program all at once, and adds to the set the numbers of the edits that were made."""

PLAIN = (Run, Read, Write, Op, Update, Const, Param, Apply, Grad, Save)
"""The kinds of node that may stand in a slice."""

ALWAYS = 64 << 20
"""Bytes that are taken to be free without looking."""
UNKNOWN = 1 << 62
"""A budget where nobody says how much there is."""

_rows: ContextVar[int | None] = ContextVar("rows", default=None)


@contextmanager
def rows_at_a_time(count: int) -> Iterator[None]:
    """Whatever fits, run so many rows at a time: to test that it changes nothing."""
    token = _rows.set(count)
    try:
        yield
    finally:
        _rows.reset(token)


class Held:
    """A value that runs gave, standing as a constant in the program that comes after."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor
        self.type = type_of(tensor)

    def tobytes(self) -> bytes:
        flat = self.tensor.detach().cpu().contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""

    def digest(self) -> str:
        return digest_of(self.type, self.tobytes())


def free_memory(device: torch.device) -> int | None:
    """Bytes free for an experiment on a device; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def run(loaded: Any, experiment: Experiment, whole: Whole, memory: int | None, progress: Progress | None) -> Outcome:
    """Run an experiment in `memory` bytes above the model (None: a share of what is free)."""
    tell = progress or (lambda done, text: None)
    if loaded.card.kind != "decoder" or not all(isinstance(node, PLAIN) for node in experiment.nodes):
        return whole(experiment, within(None, loaded.card), tell, set())
    bound = at_most(experiment, loaded.card)
    budget = memory
    if memory is None and bound > ALWAYS:
        free = free_memory(loaded.device)
        budget = None if free is None else int(SHARE * free)
    limits = within(budget, loaded.card)
    if _rows.get() is None and (budget is None or bound <= budget):
        try:
            return whole(experiment, limits, tell, set())
        except Exception as error:
            if not _out_of_memory(error):
                raise
    return Slicing(loaded, experiment, whole, budget or UNKNOWN, limits, tell).run()


class Found(NamedTuple):
    """What goes by rows, how many of them at a time, and what all of them at once would take."""

    values: Rowwise
    rows: int
    nbytes: int


class Slicing:
    """One experiment, run in parts."""

    def __init__(
        self, loaded: Any, experiment: Experiment, whole: Whole, budget: int, limits: Limits, progress: Progress
    ) -> None:
        self.loaded, self.experiment, self.whole = loaded, experiment, whole
        self.budget, self.limits, self.progress = budget, limits, progress
        self.work: Counter[str] = Counter()
        self.notes: list[str] = []
        self.plans: set[str] = set()
        self.runs: set[int] = set()
        self.written: set[int] = set()
        self.applied: set[int] = set()

    def order_of(self, run: int, site: Site) -> int | None:
        found = self.loaded.card.by_site.get(site)
        return found[0] if found else None

    def run(self) -> Outcome:
        started = time.perf_counter()
        values = self.solve(Part(self.experiment, tuple(range(len(self.experiment.nodes)))), 0.0, 1.0)
        named = {node.name: values[node.name] for node in self.experiment.nodes if isinstance(node, Save)}
        plan = "planned" if "planned" in self.plans else "reference"
        work = {**self.work, "runs": len(self.runs)}
        return Outcome(named, self._edits(), work, time.perf_counter() - started, plan, tuple(self.notes))

    def _edits(self) -> Edits:
        nodes = self.experiment.nodes
        needs = graph_of(nodes, self.order_of)
        needed = ordered(needs, [index for index, node in enumerate(nodes) if isinstance(node, Save)])
        writes = {index for index, node in enumerate(nodes) if isinstance(node, Write)}
        lost = writes.intersection(needed) - self.written
        if lost:
            raise ExecutionError(f"the edit of node {min(lost)} stood in no part of the experiment: a fault in weft")
        return Edits(len(writes), len(self.applied), len(writes) - len(self.applied))

    # -- a program in parts --------------------------------------------------------------------------------------------

    def solve(self, program: Part, low: float, high: float) -> dict[str, torch.Tensor]:
        """The values that a program saves, by name; progress goes from `low` to `high`."""
        found = self._by_rows(program.experiment)
        if found is None:
            try:
                return self._run(program, low, high)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                found = self._by_rows(program.experiment, smaller=True)
                if found is None:
                    raise self._too_large("this experiment, whose rows cannot be kept apart,") from error
        saves = {node.name: node.value for node in program.experiment.nodes if isinstance(node, Save)}
        middle = low + 0.8 * (high - low)
        if found.values.early:
            names = {name_of(ref): ref for ref in found.values.early}
            before = self.solve(self._part(program, names, {}), low, low + 0.1 * (high - low))
            known = {ref: Held(before[name]) for name, ref in names.items()}
            return self.solve(self._part(program, saves, known), low + 0.1 * (high - low), high)
        left = {name: ref for name, ref in saves.items() if found.values.state[ref.node] != ROWS}
        values = self._slices(found, program, low, middle if left else high)
        done = {name: values[ref] for name, ref in saves.items() if name not in left}
        if left:
            known = {ref: Held(value) for ref, value in values.items()}
            del values
            done |= self.solve(self._part(program, left, known), middle, high)
        return done

    def _part(self, program: Part, wanted: dict[str, Ref], known: dict[Ref, Held]) -> Part:
        found = part(program.experiment, self.order_of, wanted, known)
        return Part(found.experiment, tuple(program.origin[index] for index in found.origin))

    def _too_large(self, what: str) -> LimitError:
        return LimitError(
            f"{what} takes more memory than there is{self._planned()}; use shorter prompts or fewer rows, or read and save "
            "less at a time"
        )

    def _planned(self) -> str:
        return "" if self.budget == UNKNOWN else f", planned for {self.budget / 1e6:,.0f} MB above the model"

    def _by_rows(self, experiment: Experiment, smaller: bool = False) -> Found | None:
        """What of a program goes by rows, if it has to be cut (into `smaller` parts than it fits, if so) and can be."""
        nodes = experiment.nodes
        try:
            checked = check(experiment, self.loaded.card, UNLIMITED)
        except GradientError as error:  # what programs may not ask of a server runs here all the same, but not in parts
            self.notes.append(f"in one piece   {error}")
            return None
        sizes: Counter[int] = Counter()
        for info in checked.runs.values():
            if info.kind == "tokens" and info.batch > 1:
                sizes[info.batch] += info.batch * info.pos
        for batch, _ in sizes.most_common():
            found = rowwise(experiment, checked, self.order_of, batch, lambda data: isinstance(data, Held))
            if not found.frontier or not found.runs:
                continue
            bytes_of = estimate(
                experiment, checked, found.state, found.goes_by_rows,
                self.loaded.card, self.limits, batch,
            )  # fmt: skip
            forced = _rows.get()  # in tests
            rows = bytes_of.rows(batch, self.budget) if forced is None else min(forced, batch)
            rows = min(rows, -(-batch // 2)) if smaller else rows
            return Found(found, rows, bytes_of.total(batch)) if rows < batch else None
        if sizes:
            grads = any(isinstance(node, Grad) for node in nodes)
            why = "a gradient takes all rows" if grads else "what it reads takes all rows"
            self.notes.append(f"in one piece   {sum(sizes.values()):,} tokens of several rows: {why}")
        return None

    def _slices(self, found: Found, program: Part, low: float, high: float) -> dict[Ref, torch.Tensor]:
        """All rows of the frontier's values, made some rows at a time."""
        return_at_once()
        batch, rows, first, noted = found.values.batch, found.rows, 0, len(self.notes)
        whole: dict[Ref, torch.Tensor] = {}
        while first < batch:
            last = min(first + rows, batch)
            made = rows_of(found.values, first, last)
            piece = Part(made.experiment, tuple(program.origin[index] for index in made.origin))
            share = (high - low) / batch
            try:
                values = self._run(piece, low + share * first, low + share * last, noted=first == 0)
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                if rows == 1:
                    raise self._too_large("one row of this experiment") from error
                rows = -(-rows // 2)  # and go on with the rows that are left
                continue
            finally:
                if _rows.get() is None:
                    sweep_up()
            for ref, lie in found.values.frontier.items():
                value = values.pop(name_of(ref))
                if lie is None:
                    whole[ref] = value
                    continue
                if ref not in whole:
                    shape = found.values.types[ref.node][ref.out].shape
                    whole[ref] = torch.empty(shape, dtype=value.dtype, device=value.device)
                whole[ref].narrow(lie.dim, first * lie.inner, (last - first) * lie.inner).copy_(value)
            first = last
        self.notes.insert(
            noted,
            f"row slices     {batch} rows, at most {rows} at a time{self._planned()} (all at once: about "
            f"{found.nbytes / 1e6:,.0f} MB); the first of them:",
        )
        return whole

    def _run(self, program: Part, low: float, high: float, noted: bool = True) -> dict[str, torch.Tensor]:
        """Run a program all at once; its work, its edits and its errors count as the experiment's own."""
        applied: set[int] = set()
        nodes, origin = program.experiment.nodes, program.origin
        tell: Progress = lambda done, text: self.progress(low + (high - low) * done, text)  # noqa: E731
        try:
            outcome = self.whole(program.experiment, self.limits, tell, applied)
        except WeftError as error:
            node = error.details.get("node")
            if isinstance(node, int) and 0 <= node < len(origin):
                error.details["node"] = origin[node]
            raise
        self.applied.update(origin[index] for index in applied)
        self.written.update(origin[index] for index, node in enumerate(nodes) if isinstance(node, Write))
        self.runs.update(origin[index] for index, node in enumerate(nodes) if isinstance(node, Run))
        self.work.update(outcome.work)
        self.plans.add(outcome.plan)
        if noted and any(isinstance(node, Run) for node in nodes):
            self.notes.extend(outcome.notes)
        return dict(outcome.values)


def _out_of_memory(error: Exception) -> bool:
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in words)
