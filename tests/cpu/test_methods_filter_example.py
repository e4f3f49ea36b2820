"""The example of predicates does what docs/data-types/predicates.md says."""

from __future__ import annotations

import functools
import importlib.util
import re
from pathlib import Path

import pytest

import weft
from weft import methods

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "data-types" / "predicates.md"


def test_the_example_finds_the_filter_and_puts_predicates_in(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("predicates_example", ROOT / "examples" / "predicates.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    model = weft.load("planted/predicates")
    found = example.find(model)
    assert found.heads == ((1, 2),)
    wanted = {"bird": " owl", "tool": " saw", "drink": " tea", "fruit": " plum", "vehicle": " tram"}
    assert example.use(model, found) == wanted
    assert all(path.stat().st_size > 1000 for path in example.figures(found, tmp_path))


def test_the_page_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    some = functools.partial(methods.filter_heads, parts=("grid", "mask", "sets", "predicates"), progress=False)
    monkeypatch.setattr(methods, "filter_heads", some)
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(compile(code, PAGE.name, "exec"), space)
    model, said = space["model"], space["s"].results["said"]
    assert space["found"].heads == ((1, 2),)
    assert model.tokens.decode(said) == " plum"  # the fruit, though a tool was asked for
    assert methods.load(tmp_path / "predicates.safetensors").heads == ((1, 2),)


def test_the_page_names_every_part() -> None:
    from weft.methods.filtering.stages import PARTS

    page = PAGE.read_text()
    named = set(re.findall(r"`(\w+)`", page))
    assert set(PARTS) <= named
