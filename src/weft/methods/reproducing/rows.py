"""The paper's figures with ours beside them: `rows(paper, model, arrays, results, …)`.

A row's verdict: "agrees" (the paper's number lies in our interval, widened by its own ±), "differs", "not comparable" (with
the reason: another model, other settings, wrong answers counted in) or "not measured" (with the reason).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import xarray as xr

from weft.methods.papers import Figure, Paper
from weft.methods.result import Result

INTERVALS = {
    "causality": ("low", "high"),
    "one_source": ("one_source_low", "one_source_high"),
    "rate": ("low", "high"),
    "value": ("low", "high"),
    "accuracy": ("low", "high"),
}
"""A measure's label → those of the ends of its interval, on the same axis."""


class Row(NamedTuple):
    """One figure of the paper."""

    what: str
    expected: str
    mark: str
    model: str
    ours: float | None
    low: float | None
    high: float | None
    verdict: str
    reason: str
    key: str


class Ours(NamedTuple):
    """A number of ours, with its interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


def rows(
    paper: Paper, model: str, arrays: Mapping[str, xr.DataArray], results: Mapping[str, Result],
    reasons: Mapping[str, str], unfiltered: Mapping[str, str], other: str,
) -> tuple[Row, ...]:  # fmt: skip
    """All of the paper's figures. `model`: which of its models this is, "" if none; `other`: what is not as the paper's."""
    made = []
    for figure in paper.figures:
        ours, why = found(figure.key, arrays, results, reasons)
        if model and figure.model != model:
            ours, why = None, f"it is of {figure.model}; this is {model}"
        if not figure.key:
            why = figure.why
        loose = _unfiltered(figure.key, unfiltered)
        made.append(_row(figure, ours, why, "; ".join(each for each in (other, loose) if each)))
    return tuple(made)


def found(
    key: str, arrays: Mapping[str, xr.DataArray], results: Mapping[str, Result], reasons: Mapping[str, str]
) -> tuple[Ours | None, str]:
    """The number at a key, part / array / labels; or None and why there is none."""
    part, _, rest = key.partition("/")
    name, *labels = rest.split("/")
    held: Mapping[str, xr.DataArray] = arrays if part == "all" else results[part].arrays if part in results else {}
    if name not in held:
        left_out = getattr(results.get(part), "left_out", {}).get(name, "")
        said = reasons.get(part) or left_out or "; ".join(f"{each}: {why}" for each, why in reasons.items())
        return None, said or f"this run gives no {name!r} (see its notes)"
    try:
        return _at(held[name], labels), ""
    except KeyError:
        return None, f"{name!r} has no {'/'.join(labels)} in this run (see its notes)"


def _at(array: xr.DataArray, labels: list[str]) -> Ours:
    """The entry under these labels, one for each axis."""
    at = {}
    for dim, label in zip(array.dims, labels, strict=True):
        known = [str(each) for each in array[dim].values]
        if label not in known:
            raise KeyError(label)
        at[dim] = known.index(label)
    value = float(array.isel(at))
    ends = INTERVALS.get(labels[-1]) if labels else None
    last = array.dims[-1] if labels else ""
    if ends is None or any(end not in array[last].values for end in ends):
        return Ours(value)
    known = array[last].values.tolist()
    return Ours(value, *(float(array.isel(at | {last: known.index(end)})) for end in ends))


def _row(figure: Figure, ours: Ours | None, why: str, other: str) -> Row:
    if ours is None or ours.value != ours.value:
        return Row(figure.what, figure.shown, figure.mark, figure.model, None, None, None, "not measured", why or
                   "it came out as no number", figure.key)  # fmt: skip
    times = 100 if figure.unit == "%" else 1
    scaled = Ours(*(None if each is None else each * times for each in ours))  # type: ignore[arg-type]
    verdict = "not comparable" if other else "agrees" if agrees(figure, scaled) else "differs"
    return Row(figure.what, figure.shown, figure.mark, figure.model, *scaled, verdict, other, figure.key)


def agrees(figure: Figure, ours: Ours) -> bool:
    """Whether the paper's number (or its range), with its ±, meets our interval; without an interval, our number rounded."""
    slack = figure.tolerance or 0.0
    bottom, top = figure.value - slack, (figure.value if figure.upto is None else figure.upto) + slack
    if ours.low is None or ours.high is None:
        digits = len(f"{figure.value:g}".partition(".")[2])
        return bottom <= round(ours.value, digits) <= top
    return ours.low <= top and ours.high >= bottom


def _unfiltered(key: str, unfiltered: Mapping[str, str]) -> str:
    """Said where a number counts prompts that the model answers wrongly."""
    part = key.partition("/")[0]
    if not key or not unfiltered or (part != "all" and part not in unfiltered):
        return ""
    return "counts prompts that the model answers wrongly too"


def as_data(made: tuple[Row, ...]) -> list[dict[str, Any]]:
    """As JSON has them."""
    return [row._asdict() for row in made]
