"""One row: every contestant in alternation on the same inputs, medians, results compared, idleness watched."""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from sweeping import stand as stands
from sweeping.counted import counted
from sweeping.stand import Apart, Here, Setting, Unable
from sweeping.tasks import TASKS

NEAR = 1e-4
"""Largest difference of two results, relative to the largest value."""
MOVED = 0.05
"""… and relative to how much results differ from patch to patch, so that a lost patch cannot pass."""
IDLE = 0.05
"""Share of the cores that other processes may take."""
SHORT = 2.0
"""Core-seconds below which a share of them is too coarse to be judged alone."""


@dataclass
class Entry:
    """One contestant's part of a row: all its runs in seconds on the clock and in core-seconds.

    `scaled` is what a sample's time is multiplied with.
    """

    seconds: list[float] = field(default_factory=list)
    core: list[float] = field(default_factory=list)
    first: float = 0.0
    scaled: float = 1.0
    difference: float | None = None
    others: float = 0.0
    unable: str = ""
    work: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) * self.scaled if self.seconds else None

    @property
    def core_median(self) -> float | None:
        return statistics.median(self.core) * self.scaled if self.core else None


@dataclass
class Row:
    """A task on a model. `void` says why its ratios count for nothing; the figures stay."""

    task: str
    model: str
    title: str
    entries: dict[str, Entry]
    repeats: int
    sample: int = 0
    quick: bool = False
    void: list[str] = field(default_factory=list)
    counted: float | None = None
    yardstick: dict[str, float] = field(default_factory=dict)

    def ratio(self, rival: str) -> float | None:
        """How many times as long a rival took as weft."""
        ours, theirs = (self.entries.get(name, Entry()).median for name in ("weft", rival))
        return theirs / ours if ours and theirs else None

    def core_ratio(self, rival: str) -> float | None:
        """The same in core-seconds, which a busy machine disturbs less; with one thread, hardly."""
        ours, theirs = (self.entries.get(name, Entry()).core_median for name in ("weft", rival))
        return theirs / ours if ours and theirs else None

    def to_data(self) -> dict[str, Any]:
        data = asdict(self)
        for name, entry in self.entries.items():
            data["entries"][name]["median"] = entry.median
        rivals = [name for name in self.entries if name != "weft"]
        data["ratios"] = {name: self.ratio(name) for name in rivals}
        data["core_ratios"] = {name: self.core_ratio(name) for name in rivals}
        return data


def row_of(data: dict[str, Any]) -> Row:
    """A row as `to_data` wrote it."""
    entries = {}
    for name, entry in data["entries"].items():
        entries[name] = Entry(**{key: value for key, value in entry.items() if key != "median"})
    rest = {key: value for key, value in data.items() if key not in ("entries", "ratios", "core_ratios")}
    return Row(**rest, entries=entries)


def contest(setting: Setting, rivals: list[str], repeats: int, python: str = "", apart: bool = False) -> Row:
    """Run a task by every rival (`setting.rival` is filled in), `repeats` rounds in alternation."""
    task = TASKS[setting.task]
    row = Row(setting.task, setting.model, task.title, {}, repeats, setting.sample, setting.quick)
    ready: dict[str, Here | Apart] = {}
    results: dict[str, torch.Tensor] = {}
    taken: dict[str, list[float]] = {}
    try:
        for rival in rivals:
            row.entries[rival] = Entry()
            _try(row, rival, lambda r=rival: ready.__setitem__(r, _stand(setting._replace(rival=r), python, apart)))
        for _ in range(repeats):
            for rival in [name for name in ready if not row.entries[name].unable]:
                _try(row, rival, lambda r=rival: results.__setitem__(r, _round(row.entries[r], ready[r], taken, r)))
        _finish(row, setting, results, taken)
    finally:
        for each in ready.values():
            each.close()
    return row


def _try(row: Row, rival: str, action: Any) -> None:
    try:
        action()
    except Unable as error:
        row.entries[rival].unable = str(error)
    except Exception as error:
        row.entries[rival].unable = stands.reason(error)


def _stand(setting: Setting, python: str, apart: bool) -> Here | Apart:
    if stands.has(setting.rival) and not apart:
        return Here(setting)
    if stands.has(setting.rival):
        return Apart(setting, sys.executable)
    if python:
        return Apart(setting, python)
    raise Unable("not installed here: pip install weft[bench], or --peers PYTHON of an environment that has it")


def _round(entry: Entry, each: Here | Apart, taken: dict[str, list[float]], rival: str) -> torch.Tensor:
    found = each.run()
    entry.first, entry.work = each.first, dict(each.work)
    note(entry, found, taken.setdefault(rival, [0.0, 0.0]))
    return found.result


def note(entry: Entry, found: stands.Run, share: list[float]) -> None:
    """Put a run's times into its entry, and what others took and there was into `share`."""
    entry.seconds.append(found.seconds)
    entry.core.append(found.core)
    share[0] += found.others
    share[1] += found.there


def _finish(row: Row, setting: Setting, results: dict[str, torch.Tensor], taken: dict[str, list[float]]) -> None:
    whole = TASKS[setting.task].data(setting.model, setting.quick)
    part = TASKS[setting.task].data(setting.model, setting.quick, setting.sample)
    index = [whole.patches.index(patch) for patch in part.patches]
    row.counted = counted(TASKS[setting.task].calls, whole)
    for rival in results:
        entry = row.entries[rival]
        if len(part.patches) == len(whole.patches):
            continue
        if stands.sampled(rival, TASKS[setting.task].calls):
            base = 1 if part.corrupt else 0  # the clean run, which is made once however many patches there are
            entry.scaled = (len(whole.patches) + base) / (len(part.patches) + base)
        else:
            results[rival] = results[rival][index]
    judge(row, {name: value for name, value in results.items() if name != "bare"}, taken)


def judge(row: Row, results: dict[str, torch.Tensor], taken: dict[str, list[float]]) -> None:
    """Void the row where results differ or others took too much."""
    _compare(row, results)
    for rival in taken:
        row.entries[rival].others = _share(taken, rival)
    busy = max((entry.others for entry in row.entries.values()), default=0.0)
    if busy > IDLE:
        row.void.append(f"not idle: other processes took up to {busy:.0%} of the cores")


def _share(taken: dict[str, list[float]], rival: str) -> float:
    """What others took while a contestant ran. The kernel counts in hundredths: short runs are judged together."""
    busy, there = taken[rival]
    if there < SHORT:
        busy, there = (sum(each[i] for each in taken.values()) for i in (0, 1))
    return min(busy / max(there, 1e-9), 1.0)


def _compare(row: Row, results: dict[str, torch.Tensor]) -> None:
    if not results:
        row.void.append("nobody could do it")
        return
    judge = "hooks" if "hooks" in results else next(iter(results))
    wanted = results[judge].double()
    largest = float(wanted.abs().max()) or 1.0
    spread = float(wanted.std(0).mean()) if wanted.dim() > 1 and len(wanted) > 1 else largest
    for rival, value in results.items():
        entry = row.entries[rival]
        if value.shape != wanted.shape:
            row.void.append(f"{rival} gives {tuple(value.shape)}, {judge} {tuple(wanted.shape)}")
            continue
        apart = float((value.double() - wanted).abs().max())
        entry.difference = apart / largest
        if not apart <= min(NEAR * largest, MOVED * spread):
            row.void.append(f"{rival} differs from {judge} by {entry.difference:.1e} of the largest value")
