"""The collector's thresholds are what they were, whoever ran what meanwhile."""

from __future__ import annotations

import gc

import pytest

from weft.execute.collector import young_only


def test_thresholds_come_back_after_the_last_of_several() -> None:
    before = gc.get_threshold()
    first, second = young_only(), young_only()
    first.__enter__()
    second.__enter__()
    assert gc.get_threshold()[:2] == before[:2]
    assert gc.get_threshold()[2] > 1_000_000
    first.__exit__(None, None, None)
    assert gc.get_threshold()[2] > 1_000_000
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_thresholds_come_back_after_an_error() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="no"), young_only():
        raise ValueError("no")
    assert gc.get_threshold() == before
