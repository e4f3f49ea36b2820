"""Filter heads found through a server are those found here."""

from __future__ import annotations

import numpy as np
import pytest

import weft
from weft import tasks
from weft.methods.filter_heads import FilterHeads, filter_heads
from weft.planted.predicates import CATEGORIES

PARTS = ("grid", "attention", "mask", "necessity", "predicates", "probe", "subspace")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FilterHeads]:
    from weft.serve import background

    task = tasks.SelectOne(categories=CATEGORIES, question="Which among these objects mentioned above is a {}?")

    def found(model: weft.Model) -> FilterHeads:
        return filter_heads(
            model, task, pairs=4, train_pairs=4, epochs=60, batch_size=2, random_sets=1, parts=PARTS, progress=False
        )

    with background(["planted/predicates"], tmp_path_factory.mktemp("served")) as url:
        return {
            "there": found(weft.connect(url).model("planted/predicates")),
            "here": found(weft.load("planted/predicates")),
        }


def test_the_same_head_is_found(results: dict[str, FilterHeads]) -> None:
    assert results["there"].heads == results["here"].heads == ((1, 2),)
    assert results["there"].left_out == {}
    assert results["there"]["causality"].values[1, 2] == 1 == results["there"]["causality"].values.sum()


@pytest.mark.parametrize("name", ["delta", "attention", "mask", "necessity", "predicates", "probe", "subspace"])
def test_the_numbers_are_the_same(results: dict[str, FilterHeads], name: str) -> None:
    there, here = (results[where][name].values for where in ("there", "here"))
    np.testing.assert_allclose(there, here, atol=1e-3)
