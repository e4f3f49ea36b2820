"""Rows as text for a terminal and as tables for the page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sweeping.contest import Row
from sweeping.tasks import TASKS

NAMES = (
    "weft",
    "hooks",
    "hooks, one row",
    "expert",
    "nnsight",
    "transformer-lens",
    "pyvene",
    "weft one by one",
    "bare",
)


def header(machine: dict[str, Any]) -> str:
    """The machine and the versions."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory']}; {machine['threads']} threads; "
        f"load before {machine['load'][0]}\nPython {machine['python']}, {versions}"
    )


def text(row: Row, bars: dict[str, float] | None = None) -> str:
    """One row, a contestant a line; `bars` are the ratios asked for, where it is not a task of `weft bench sweeps`."""
    note = "  quick" if row.quick else ""
    lines = [f"({row.task}) {row.title} · {row.model}{note}" + (f"  VOID: {'; '.join(row.void)}" if row.void else "")]
    for name in _order(row):
        entry = row.entries[name]
        if entry.median is None:
            lines.append(f"    {name:18} —  {entry.unable}")
            continue
        ratio, core = row.ratio(name), row.core_ratio(name)
        spread = f"{min(entry.seconds) * entry.scaled:.4g}–{max(entry.seconds) * entry.scaled:.4g}"
        about = "≈" if entry.scaled != 1 else " "
        lines.append(
            f"    {name:18} {about}{seconds(entry.median):>10}  ({spread} s)"
            + (f"  {ratio:6.2f}× weft's" if ratio and name != "weft" else "")
            + (f", {core:.2f}× in core-seconds" if core and name != "weft" else "")
            + (f"  others {entry.others:.0%}" if entry.others > 0.01 else "")
        )
    return "\n".join([*lines, *(f"    {line}" for line in judged(row, bars))])


def _order(row: Row) -> list[str]:
    """Contestants that took part or should have; those for whom the task was never written are left out."""
    return [name for name in NAMES if name in row.entries and row.entries[name].unable != "not written"]


def seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def judged(row: Row, bars: dict[str, float] | None = None) -> list[str]:
    """What was asked for and what came: bars, counted work, the yardstick, what a trace adds."""
    lines = []
    if row.model == "gpt2" and not row.quick:
        for rival, bar in (TASKS[row.task].bars if bars is None else bars).items():
            ratio = row.ratio(rival)
            if ratio:
                lines.append(f"asked ≥ {bar:g}× {rival}: {ratio:.1f}× {verdict(ratio >= bar, row)}")
    lines += worked(row)
    if row.yardstick and row.entries["weft"].median:
        own = row.yardstick["seconds"]
        lines.append(
            f"its {row.yardstick['products']:.0f} matrix products alone: {seconds(own)}; "
            f"weft took {row.entries['weft'].median / own:.2f}× that"
        )
    lines += added(row)
    return lines


def verdict(met: bool, row: Row) -> str:
    """A void row decides nothing."""
    return ("met" if met else "NOT met") + (", if the row were not void" if row.void else "")


def worked(row: Row) -> list[str]:
    """Work counted by hand, planned by weft, and seen as it was dispatched."""
    said = row.entries["weft"].work.get("flops") if "weft" in row.entries else None
    of = lambda work: f" ({work / row.counted:.2f}×)" if row.counted else ""  # noqa: E731
    parts = [f"counted {row.counted / 1e9:.4g} GFLOP"] if row.counted else []
    parts += [f"planned {said / 1e9:.4g} GFLOP{of(said)}"] if said else []
    parts += [f"dispatched {row.yardstick['gflop']:.4g}{of(row.yardstick['gflop'] * 1e9)}"] if row.yardstick else []
    return [", ".join(parts)] if parts else []


def added(row: Row) -> list[str]:
    """What one edit adds to the model's own forward, on the clock and in core-seconds."""
    if "bare" not in row.entries or row.entries["bare"].median is None:
        return []
    bare, lines = row.entries["bare"], []
    for unit, of in (("", lambda entry: entry.median), (" in core-seconds", lambda entry: entry.core_median)):
        more = {name: of(each) - of(bare) for name, each in row.entries.items() if of(each) and name != "bare"}
        found = ", ".join(f"{name} {value * 1e3:.2f}" for name, value in more.items())
        lines.append(f"adds to a bare forward, ms{unit}: {found}")
    return lines


def table(rows: Iterable[Row]) -> str:
    """Ratios as a table of Markdown: how many times as long as weft each contestant took."""
    rows = list(rows)
    names = [name for name in NAMES if name not in ("weft", "bare") and any(name in _order(row) for row in rows)]
    lines = ["| task | model | weft | " + " | ".join(names) + " | limit by FLOPs | notes |"]
    lines.append("|---|---|---|" + "---|" * len(names) + "---|---|")
    for row in rows:
        ours = row.entries.get("weft")
        cells = [_cell(row, name) for name in names]
        limit = TASKS[row.task].limit if row.model == "gpt2" else None
        head = f"| ({row.task}) {row.title} | {row.model} | {seconds(ours.median) if ours and ours.median else '—'} | "
        notes = "; ".join(("void, " + each) for each in row.void) or ""
        lines.append(head + " | ".join(cells) + f" | {f'{limit:g}×' if limit else ''} | {notes} |")
    return "\n".join(lines)


def _cell(row: Row, name: str) -> str:
    if name not in _order(row):
        return ""
    ratio, entry = row.ratio(name), row.entries[name]
    if ratio is None:
        return "—"
    about = "≈ " if entry.scaled != 1 else ""
    return f"{about}{ratio:.2f}×" if ratio < 10 else f"{about}{ratio:.1f}×"
