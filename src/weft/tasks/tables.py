"""Tables of facts: weft's own relations, and those in folders of JSON files.

own_tables()                                           # from weft.tasks.words.relations
read_tables("assets/data/relations")                   # a folder and those below it, or one file

Two forms are read: {"name", "prompt_templates": ["The capital of {} is"], "samples": [{"subject", "object"}]}, and a list of
{"input", "output"}, which gets the template "{}:". Other files are named in an error, not passed over.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import weft
from weft.tasks.words.relations import RELATIONS


class Table(NamedTuple):
    """A relation: sentences up to the object, "{}" for the subject, and subject → object (one each)."""

    name: str
    templates: tuple[str, ...]
    facts: Mapping[str, str]


def own_tables() -> dict[str, Table]:
    """The relations written for weft, each with its sentence."""
    return {name: Table(name, (each.sentence,), each.pairs) for name, each in RELATIONS.items()}


def read_tables(path: str | Path) -> dict[str, Table]:
    """The tables in a JSON file, or in all JSON files of a folder and those below it; by name."""
    path = Path(path)
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise weft.errors.ProgramError(f"no JSON file below {path}")
    tables = [_table(file) for file in files]
    return {each.name: each for each in tables}


def _table(file: Path) -> Table:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(data, list):
            return Table(file.stem, ("{}:",), _facts(data, "input", "output"))
        templates = tuple(text for text in data["prompt_templates"] if text.count("{}") == 1)
        return Table(data["name"], templates, _facts(data["samples"], "subject", "object"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise weft.errors.ProgramError(
            f"{file} is no table of facts ({error!r}); expected a list of {{input, output}}, or an object with name, "
            "prompt_templates and samples of {subject, object}"
        ) from None


def _facts(rows: Sequence[Mapping[str, Any]], key: str, value: str) -> dict[str, str]:
    """One object for each subject: of several, the first."""
    facts: dict[str, str] = {}
    for row in rows:
        facts.setdefault(str(row[key]), str(row[value]))
    return facts
