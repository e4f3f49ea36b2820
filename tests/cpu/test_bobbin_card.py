"""The card says what was measured, and does not say that a bar is reached that is not."""

from __future__ import annotations

import math
from typing import Any

import pytest

import weft
from weft.bobbin import card, measure, model, screen, tokenizer


@pytest.fixture(scope="module")
def net() -> Any:
    return model.make(tokenizer.build().get_vocab_size(), size=model.TINY).eval()


def test_a_model_that_knows_nothing_fails_every_bar_but_that_of_knowing_nothing(net: Any) -> None:
    rows = card.accuracies(weft.load(net, tokenizer=tokenizer.build()), n=2)
    names = {row.name for row in rows}
    assert names == {*measure.suite(), "functions_bare", "copying"}
    assert {row.name for row in rows if row.bar and row.holds} == {"functions_bare"}
    found = {"induction": screen.Finding(False, "no head", {})}
    text = card.card(rows, found, (11.0, 11.0), [], net, "It was made in haste.")
    assert text.count("**fails**") == sum(bool(row.bar) for row in rows) - 1
    assert "| induction | **fail** | no head |" in text
    assert f"Below its bar: {', '.join(row.name for row in rows if row.bar and not row.holds)}." in text
    assert "Mechanisms not found: induction." in text
    assert "2 layers, 2 heads, width 16" in text
    assert text.endswith("It was made in haste.\n")


def test_a_model_that_knows_nothing_needs_as_many_bits_as_choosing_blindly(net: Any) -> None:
    everything, decided = card.bits(net, tokenizer.build(), rows=4)
    blind = math.log2(net.config.vocab_size)
    assert everything == pytest.approx(blind, abs=0.1)
    assert decided == pytest.approx(blind, abs=0.1)
