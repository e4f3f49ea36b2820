"""Engine and reference on one experiment: the same, or where they first differ."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module

import torch
from tests.generated.experiment import Experiment, Result, run

from weft.errors import ProgramError, TraceError
from weft.execute.sliced import rows_at_a_time
from weft.ir.outcome import Outcome
from weft.plan.memory import Limits

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


@dataclass(frozen=True)
class Verdict:
    """`kind` is "same", "skipped" (the same error in both) or "different"; `text` says what and where."""

    kind: str
    text: str = ""
    plan: str = ""
    outcome: Outcome | None = None


LIMITS = {
    "weft.plan.memory": {"DEFAULT": Limits(tokens=24, logits=3)},
    "weft.plan.share": {"SHARED_AT_LEAST": 2},
    "weft.execute.turns": {"MOST_BYTES": 6000},
}
"""The engine's limits, so small that tiny experiments come up against them."""


@contextmanager
def small_limits() -> Iterator[None]:
    """Passes are cut into chunks, and short prefixes shared, as those of large experiments are."""
    before = [(import_module(module), name, value) for module, small in LIMITS.items() for name, value in small.items()]
    kept = [getattr(module, name) for module, name, _ in before]
    for module, name, value in before:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(before, kept, strict=True):
            setattr(module, name, value)


def compare(experiment: Experiment, plan: str = "auto") -> Verdict:
    """Run an experiment by the reference and under `plan`; odd seeds with the engine's limits made small, and every third
    seed also one or two rows at a time."""
    expected = attempt(experiment, "reference")
    with small_limits() if experiment.seed % 2 else nullcontext():
        found = attempt(experiment, plan)
        verdict = _verdict(experiment, expected, found)
        if verdict.kind == "same" and plan == "auto" and experiment.seed % 3 == 0:
            with rows_at_a_time(1 + experiment.seed % 2):
                sliced = _verdict(experiment, expected, attempt(experiment, plan))
            return sliced if sliced.kind != "same" else verdict
    return verdict


def _verdict(experiment: Experiment, expected: Result | Exception, found: Result | Exception) -> Verdict:
    if isinstance(expected, Exception) or isinstance(found, Exception):
        return _errors(expected, found)
    text = difference(expected.values, found.values, TOLERANCE[experiment.which.dtype]) or _edits(expected, found)
    return Verdict("different" if text else "same", text, found.outcome.plan, found.outcome)


def attempt(experiment: Experiment, plan: str) -> Result | Exception:
    """What running gave, or the error."""
    try:
        return run(experiment, plan)
    except Exception as error:
        return error


def _errors(expected: Result | Exception, found: Result | Exception) -> Verdict:
    if type(expected) is type(found) and is_not_legal(expected):
        return Verdict("skipped", _said(expected))
    return Verdict("different", f"reference: {_said(expected)}\nplanned:   {_said(found)}")


def is_not_legal(error: Result | Exception) -> bool:
    """Whether the draw is at fault: its statements are refused, or it blocks all keys of a query."""
    return isinstance(error, ProgramError | TraceError) or "is blocked (-inf)" in str(error)


def _said(result: Result | Exception) -> str:
    return f"{type(result).__name__}: {result}" if isinstance(result, Exception) else "ran"


def _edits(expected: Result, found: Result) -> str:
    a, b = expected.outcome.edits, found.outcome.edits
    if a.asked != b.asked:
        return f"edits asked for: reference {a.asked}, planned {b.asked}"
    for name, edits in (("reference", a), ("planned", b)):
        if edits.asked != edits.applied + edits.without_effect:
            return f"{name}: {edits} do not add up"
    return ""


def difference(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor], tolerance: float) -> str:
    """Where the values first differ by more than `tolerance` of the largest; "" if nowhere."""
    if expected.keys() != found.keys():
        return f"saved names differ: {sorted(expected.keys() ^ found.keys())}"
    for name in expected:
        text = _differs(expected[name], found[name], tolerance)
        if text:
            return f"{name}: {text}"
    return ""


def _differs(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> str:
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}"
    if not a.numel():
        return ""
    if not a.dtype.is_floating_point:
        wrong = a != b
    else:
        finite = a[a.isfinite()].abs()
        scale = float(finite.max()) if finite.numel() else 0.0
        wrong = ~torch.isclose(b, a, rtol=0.0, atol=tolerance * max(scale, 1.0), equal_nan=True)
    if not bool(wrong.any()):
        return ""
    place = tuple(int(i) for i in wrong.nonzero()[0])
    return (
        f"{int(wrong.sum())} of {wrong.numel()} differ, first at {place}: {a[place].item()} against {b[place].item()}"
    )
