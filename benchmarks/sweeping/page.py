"""docs/performance.md and its picture, written from rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweeping import show
from sweeping.contest import Row
from sweeping.tasks import TASKS

DOCS = Path(__file__).parents[2] / "docs"
COLOURS = {
    "hooks": "#7f7f7f", "expert": "#4c72b0", "nnsight": "#dd8452", "transformer-lens": "#55a868", "pyvene": "#c44e52",
}  # fmt: skip

OPENING = """# Performance

Written by `weft bench sweeps --write-docs`; do not edit. How many times as long as weft each way takes: the same task run by
all in alternation, on the same inputs and weights (random, float32), medians of {repeats}. A row is void where results differ
by more than 1e-4 of the largest value, or where other processes took over 5 % of the cores; its figures are still shown,
and below, row by row, core-seconds as well, which a busy machine disturbs less.
"""
MEANINGS = """
- **hooks**: plain hooks on the model's default forward, one forward for each patch.
- **expert**: what a careful user writes by hand: patches expanded into the batch, `logits_to_keep=1`, base activations cached,
  `inference_mode`, the faster of sdpa and eager and of two chunk sizes, found by trying; in (i) the shared prefix run once.
- **nnsight**, **transformer-lens**, **pyvene**: their current releases, used as their documentation does.
  TransformerLens's own patching helpers are used for (a) to (c).
- ≈: measured on {sample} patches spread evenly over the sweep, times what the whole sweep has. Only ways that do a patch for
  about what the next one costs are sampled; weft always runs the whole.
- —: that tool cannot do the task; the reasons are below.
"""
METHODS = """
## By the methods

`weft bench atlas` times what `function_vector` and `filter_heads` do to all heads of a GPT-2-sized model, by their own
functions: indirect effects of 25 prompts and patched queries of 32, each of 64 tokens or more, against one forward pass a head
with a plain hook. At least 30 times is asked of it, results equal to 1e-4 of the largest value. It prints its machine and
versions as this page has them; "hooks, one row" is the same loop with `logits_to_keep=1`.
"""


def write(rows: list[Row], machine: dict[str, Any], folder: Path = DOCS) -> None:
    """Write the page and the picture."""
    folder.mkdir(exist_ok=True)
    _picture(rows, folder / "performance.png")
    repeats = min((row.repeats for row in rows), default=0)
    sample = " or ".join(str(each) for each in sorted({row.sample for row in rows if row.sample}))
    parts = [
        OPENING.format(repeats=repeats),
        "![Ratios to weft's time, by task](performance.png)\n",
        show.header(machine).replace("\n", "  \n") + "\n",
        show.table(rows),
        MEANINGS.format(sample=sample or "all"),
        "## Row by row\n",
        "```\n" + "\n\n".join(show.text(row) for row in rows) + _between(rows) + "\n```",
        _reasons(rows),
        METHODS,
    ]
    (folder / "performance.md").write_text("\n".join(parts).rstrip() + "\n")


def _between(rows: list[Row]) -> str:
    """What is asked of one row by another's figure."""
    found = {(row.task, row.model): row for row in rows}
    lines = []
    for model in ("gpt2", "llama"):
        plain, ragged = found.get(("a64", model)), found.get(("ragged", model))
        ratios = [row.ratio("hooks") if row else None for row in (plain, ragged)]
        if ratios[0] and ratios[1]:
            lines.append(f"ragged against (a64)'s ratio, {model}: {ratios[1] / ratios[0]:.2f} (asked ≥ 0.7)")
    return "\n\n" + "\n".join(lines) if lines else ""


def _reasons(rows: list[Row]) -> str:
    seen = {}
    for row in rows:
        for name, entry in row.entries.items():
            if entry.unable and entry.unable != "not written":
                seen.setdefault((name, entry.unable), []).append(f"({row.task})")
    lines = [f"- {name}, {', '.join(dict.fromkeys(tasks))}: {why}" for (name, why), tasks in seen.items()]
    return "\n## Could not be had\n\n" + "\n".join(lines) if lines else ""


def _picture(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.ratio("hooks") and row.task != "f"]
    names = [name for name in COLOURS if any(row.ratio(name) for row in shown)]
    figure, axes = pyplot.subplots(figsize=(8.5, 0.9 + 0.62 * max(len(shown), 1)), layout="constrained")
    height = 0.8 / max(len(names), 1)
    for index, name in enumerate(names):
        places = [y + (index - (len(names) - 1) / 2) * height for y, row in enumerate(shown) if row.ratio(name)]
        ratios = [row.ratio(name) for row in shown if row.ratio(name)]
        beyond = [ratio - 1 for ratio in ratios]  # from 1×: to the right weft is faster, to the left slower
        axes.barh(places, beyond, left=1, height=height * 0.92, color=COLOURS[name], label=name)
    for y, row in enumerate(shown):
        limit = TASKS[row.task].limit if row.model == "gpt2" else None
        if limit:
            axes.plot([limit, limit], [y - 0.45, y + 0.45], color="black", linewidth=1.5)
    axes.axvline(1, color="black", linewidth=0.6)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [f"({row.task}) {row.model}{' *' if row.void else ''}" for row in shown])
    axes.invert_yaxis()
    axes.set_xlabel(
        "times as long as weft (thick line: what counting FLOPs allows against hooks; *: void, see the table)"
    )
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if names:
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
