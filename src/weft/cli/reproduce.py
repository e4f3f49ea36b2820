"""`weft reproduce`: a paper's numbers, and ours beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def list_papers(as_json: bool) -> None:
    """Print the papers that can be reproduced, with the models they need."""
    from weft.methods.papers import PAPERS

    if as_json:
        print(json.dumps({name: _described(paper) for name, paper in PAPERS.items()}, indent=2))
        return
    for name, paper in PAPERS.items():
        models = ", ".join(each.id for each in paper.models)
        print(f"{name:<18}{paper.title}\n{'':<18}{paper.authors}, {paper.venue}, arXiv {paper.arxiv}; {models}")
    print("\nweft reproduce PAPER shows its numbers; with --model SOURCE it runs the paper's settings there.")


def reproduce_paper(
    paper: str, source: str, *, url: str, tokenizer: str, dtype: str, device: str, out: Path | None, seed: int,
    only_right: bool | None, as_json: bool,
) -> bool:  # fmt: skip
    """Run (or say what is missing), print, and save in `out`; whether it ran whole and nothing comparable differs."""
    from weft import methods

    found = methods.reproduce(
        paper, _model(source, url), seed=seed, only_right=only_right, out=out, progress=not as_json,
        loading=_loading(tokenizer, dtype, device),
    )  # fmt: skip
    print(json.dumps(found.to_data(), indent=2, default=str)) if as_json else show(found)
    return found.right


def show(found: Any) -> None:
    """Print a reproduction for people: the table, what differs from the paper, and what is missing."""
    from rich.console import Console
    from rich.markup import escape

    from weft.methods.papers import PAPERS
    from weft.methods.papers.form import MARKS
    from weft.methods.reproducing.missing import told

    paper, console = PAPERS[found.paper], Console(highlight=False)
    console.print(f"[b]{escape(paper.title)}[/] ({escape(paper.authors)}, {paper.venue}, arXiv {paper.arxiv})")
    console.print(f"model: {found.model or 'none'}; seed {found.seeds[0]}\n", markup=False)
    console.print(_table(found.rows))
    console.print(" ".join(f"{mark}: {what}." for mark, what in MARKS.items()), markup=False)
    sections = {"What weft does otherwise": list(found.differs), "In this run": [_first(note) for note in found.notes]}
    sections["Could not be had"] = [_first(f"{part}: {why}") for part, why in found.failed.items()]
    for title, lines in sections.items():
        if lines:
            console.print(f"\n[b]{title}[/]")
            console.print("\n".join(f"- {line}" for line in lines), markup=False)
    if found.stopped:
        console.print(f"\nstopped: {found.stopped}", markup=False)
    if found.missing:
        console.print("\n" + told(dict(found.missing)), markup=False)


def _table(rows: Any) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("figure", "paper", "", "weft", "verdict")
    model = None
    for row in rows:
        if row.model != model:
            model = row.model
            table.add_section()
            table.add_row(Text(model, style="b"))
        verdict = f"{row.verdict}: {_first(row.reason)}" if row.reason else row.verdict
        table.add_row(*(Text(each) for each in (row.what, row.expected, row.mark, _ours(row), verdict)))
    return table


def _ours(row: Any) -> str:
    if row.ours is None:
        return ""
    value, low, high = (
        None if each is None else f"{round(each, 9) + 0.0:.3g}" for each in (row.ours, row.low, row.high)
    )
    return f"{value}" if low is None else f"{value} ({low} to {high})"


def _first(text: str, length: int = 240) -> str:
    """One line of a text; what a model was asked can be pages long, and is whole in the file and with --json."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def _model(source: str, url: str) -> Any:
    """What `reproduce` takes: a server's model, a source to be loaded, or nothing."""
    import weft
    from weft import planted

    planted.register()
    if not url:
        return source or None
    if not source:
        raise weft.errors.ModelError("--url needs --model: the name that the server has for it (weft models --url URL)")
    return weft.connect(url).model(source)


def _loading(tokenizer: str, dtype: str, device: str) -> dict[str, str]:
    """The options of weft.load; "auto" places a model on all devices there are."""
    given = {"tokenizer": tokenizer, "dtype": dtype, "device_map" if device == "auto" else "device": device}
    return {name: value for name, value in given.items() if value}


def _described(paper: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(paper) | {"models": [asdict(each) | {"command": paper.command(each.id)} for each in paper.models]}
