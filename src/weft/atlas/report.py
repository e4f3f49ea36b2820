"""The report: one HTML file with text, figures, tables and the results themselves, which opens without a network."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.atlas.part import Part
from weft.methods import Result

LARGEST = 4 << 20
"""A result's file above this size is named in the page and not put into it."""
STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1,h2{line-height:1.2}h2{margin-top:3rem;border-top:1px solid #ddd;padding-top:1rem}
table{border-collapse:collapse;font-size:14px;margin:.5rem 0}
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #eee}
td:first-child,th:first-child{text-align:left}.words td{text-align:left}.quiet{color:#666;font-size:14px}
figure{margin:1.5rem 0}figcaption{color:#444;font-size:14px}nav a{margin-right:1rem}details{margin:.5rem 0}
.wide{overflow-x:auto}
"""


def write(
    path: Path, model: Any, parts: Sequence[Part], found: Mapping[str, Result], skipped: Mapping[str, str], stopped: str
) -> Path:
    """Write the page; its path."""
    done = [part for part in parts if part.name in found]
    body = [_head(model, done, skipped, stopped)]
    body += [_section(part, found[part.name], path.parent) for part in done]
    body.append(_left_out({part.name: part.title for part in parts}, skipped))
    title = f"Atlas of {html.escape(model.card.name)}"
    path.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
        f"<script>{_plotly()}</script></head><body><h1>{title}</h1>\n" + "\n".join(body) + "\n</body></html>\n",
        encoding="utf-8",
    )
    return path


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _head(model: Any, done: Sequence[Part], skipped: Mapping[str, str], stopped: str) -> str:
    sizes = ", ".join(f"{name} {value}" for name, value in model.card.sizes.items())
    links = "".join(f'<a href="#{part.name}">{html.escape(part.title)}</a> ' for part in done)
    unfinished = f"<p><b>Not finished:</b> it was stopped {html.escape(stopped)}.</p>" if stopped else ""
    return (
        "<p>What this model can do, and which of its parts do it. Each section asks one question, says how it is answered and "
        "what was found, and when not to believe it. Every number comes with the experiment that gave it.</p>"
        f'<p class="quiet">{html.escape(sizes)}; {html.escape(model.card.family or model.card.kind)}</p>{unfinished}'
        f"<nav>{links}{'<a href=#left-out>What was left out</a>' if skipped else ''}</nav>"
    )


def _section(part: Part, result: Result, folder: Path) -> str:
    says = "".join(f"<li>{html.escape(each)}</li>" for each in part.says(result))
    pictures = "".join(
        f'<figure><div class="wide">{each.plot.to_html(full_html=False, include_plotlyjs=False)}</div>'
        f"<figcaption>{html.escape(each.caption)}</figcaption></figure>"
        for each in part.figures(result)
    )
    tables = "".join(_table(result, name) for name in part.tables if name in result.arrays)
    return (
        f'<h2 id="{part.name}">{html.escape(part.title)}</h2><p>{html.escape(part.asks)}</p><ul>{says}</ul>{pictures}'
        f"{tables}<p><b>When not to believe it.</b> {html.escape(part.misleads)}</p>"
        f"{_words(result)}{_records(part, result, folder)}"
    )


def _table(result: Result, name: str) -> str:
    array = result[name]
    table = array.to_pandas() if array.ndim in (1, 2) else result.to_dataframe(name)
    frame = table.to_frame() if array.ndim == 1 else table
    numbers = frame.round(3).to_html(border=0)
    return f'<details><summary>{html.escape(name)} as numbers</summary><div class="wide">{numbers}</div></details>'


def _words(result: Result) -> str:
    rows = "".join(f"<tr><td>{name}</td><td>{html.escape(value)}</td></tr>" for name, value in result.words.items())
    return f'<details><summary>How, in the field’s words</summary><table class="words">{rows}</table></details>'


def _records(part: Part, result: Result, folder: Path) -> str:
    """The records by their names, and the result's own file, records in it, to be kept or loaded."""
    if not result.records:
        return ""
    from weft.atlas.run import _file

    file = _file(folder, part.name)
    data = file.read_bytes()
    if len(data) <= LARGEST:
        inside = base64.b64encode(data).decode()
        link = f'<a download="{file.name}" href="data:application/octet-stream;base64,{inside}">{file.name}</a>'
    else:
        link = f"{file.name}, in the folder results beside this page"
    rows = "".join(
        f"<tr><td>{each.hash[:16]}</td><td>{each.edits.asked} asked, {each.edits.applied} applied</td>"
        f"<td>{each.seconds:.2f} s</td></tr>"
        for each in result.records
    )
    table = f"<table><tr><th>record</th><th>edits</th><th>took</th></tr>{rows}</table>" if rows else ""
    return (
        f"<details><summary>Records ({len(result.records)})</summary><p>All of it, records too: {link}. "
        "<code>weft.methods.load</code> reads it; <code>result.records[0].save(path)</code> and <code>weft replay path</code> "
        f"run one again.</p>{table}</details>"
    )


def _left_out(titles: Mapping[str, str], skipped: Mapping[str, str]) -> str:
    if not skipped:
        return ""
    rows = "".join(
        f"<li><b>{html.escape(titles.get(name, name))}</b>: {html.escape(why)}</li>" for name, why in skipped.items()
    )
    return f'<h2 id="left-out">What was left out, and why</h2><ul>{rows}</ul>'
