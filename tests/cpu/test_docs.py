"""What the documents show is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.tiny import tiny

import weft
from weft.ir.text import render

ROOT = Path(__file__).parents[2]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def run(code: str, name: str) -> dict:
    space: dict = {}
    exec(compile(code, name, "exec"), space)
    return space


def test_the_readmes_example_runs(capsys) -> None:
    (code,) = blocks("README.md", "python")
    run(code, "README.md")
    assert float(capsys.readouterr().out) > 10  # the patch brings " Paris" back


def test_the_program_shown_is_the_program_recorded() -> None:
    (code,), (text,) = blocks("docs/program.md", "python"), blocks("docs/program.md", "text")
    recorded = render(run(code, "program.md")["s"].experiment)
    without_notes = [re.split(r"\s+# ", line)[0] for line in recorded.splitlines()]
    assert without_notes == text.splitlines()


def test_the_sites_listed_are_the_sites_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)(?:\[l\])?` \| ([\w ]+) \|", (ROOT / "docs/sites.md").read_text(), re.MULTILINE)
    cards = [weft.load("induction").backend.card, weft.load(tiny("mixtral")).backend.card]
    there = {spec.site.name: " ".join(spec.axes) for card in cards for spec in card.sites if not spec.site.path}
    assert dict(rows) == there


def test_hook_names_listed_are_those_taken() -> None:
    rows = re.findall(r"^\| `(\w+)\[l\]` .* \| `([\w.]+)` \|$", (ROOT / "docs/sites.md").read_text(), re.MULTILINE)
    with weft.load("induction").trace("The cat") as one:
        for site, hook in rows:
            assert str(one[f"blocks.1.{hook}"].shape) == str(getattr(one, site)[1].shape)
        one.logits.save()
    assert len(rows) == 15


def test_every_document_that_is_linked_is_there() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", document.read_text()):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_the_training_shown_leaves_the_planted_head_alone() -> None:
    (code,) = blocks("docs/training.md", "python")
    assert run(code, "training.md")["mask"].nonzero().tolist() == [[2, 3]]


def test_the_atlas_shown_finds_the_planted_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: weft.tasks.TASKS[name] for name in ("select_one", "repeated")}
    monkeypatch.setattr(weft.tasks, "TASKS", few)  # all of them take long
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("docs/atlas.md", "python")
    found = run(code, "docs/atlas.md")["found"]
    assert found["induction"].above() == [(2, 3)]
    assert "could not be asked" in found.skipped["functions"]
    assert "select_one" in found.skipped["predicates"]
