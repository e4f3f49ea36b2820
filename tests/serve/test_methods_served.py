"""Methods through a server: the same numbers as in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import weft
from weft.methods import activation_patching, function_vector
from weft.planted.functions import FUNCTIONS, WORDS, prompt

NAME = "planted/functions"
SETTING = {"shots": 6, "held_out": 0, "n_means": 8, "n_effects": 8, "controls": 1, "rebuild": 3, "progress": False}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[weft.Model]:
    from weft.serve import background

    with background([NAME], tmp_path_factory.mktemp("methods")) as url:
        yield weft.connect(url).model(NAME)


def same(one: weft.methods.Result, other: weft.methods.Result) -> None:
    assert list(one.arrays) == list(other.arrays)
    for name, array in one.arrays.items():
        assert array.dims == other[name].dims
        if array.dtype.kind == "f":
            assert np.allclose(array, other[name], atol=1e-4), name
        else:
            assert (array.values == other[name].values).all(), name


def test_a_function_vector(served: weft.Model, tmp_path: Path) -> None:
    there = function_vector(served, FUNCTIONS["third"], **SETTING)
    same(there, function_vector(weft.load(NAME), FUNCTIONS["third"], **SETTING))
    assert there.heads == [weft.planted.build(NAME).truth.heads["function"]]
    assert (
        weft.methods.load(there.save(tmp_path / "fv.safetensors")).records[0].fingerprint
        == there.records[0].fingerprint
    )
    with there.steer(served).session() as s:
        g = s.generate(["Q: red\nA:"], max_new_tokens=1)
    assert g.text == [f" {FUNCTIONS['third']['red']}"]


@pytest.mark.parametrize("how", [{}, {"ablate": "mean", "metric": "log_prob", "others": None}])
def test_patching(served: weft.Model, how: dict) -> None:
    clean, corrupt = (
        [prompt([(x, FUNCTIONS[name][x]) for x in WORDS[:6]], query) for query in WORDS[6:]]
        for name in ("next", "third")
    )
    answers, others = ([f" {FUNCTIONS[name][query]}" for query in WORDS[6:]] for name in ("next", "third"))
    options = {"answers": answers, "others": others, "progress": False} | how
    there = activation_patching(served, clean, corrupt, **options)
    same(there, activation_patching(weft.load(NAME), clean, corrupt, **options))
    assert len(there.records) == 2
