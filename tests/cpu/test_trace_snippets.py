"""Ordinary user code, traced, equals PyTorch or is refused at its line: nothing differs silently."""

from __future__ import annotations

import pytest
from snippets import Snippet, load
from tracing import compare, refused

SNIPPETS = load()
EQUAL = [each for each in SNIPPETS if each.raises is None]
REFUSED = [each for each in SNIPPETS if each.raises is not None]


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of what the snippets do
@pytest.mark.parametrize("each", EQUAL, ids=lambda each: each.name)
def test_equals_eager_pytorch(each: Snippet) -> None:
    compare(each)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("each", REFUSED, ids=lambda each: each.name)
def test_is_refused_at_its_line(each: Snippet) -> None:
    refused(each)


def test_there_are_enough_of_them() -> None:
    assert len(SNIPPETS) >= 160
    assert len(EQUAL) >= 120
    assert len({each.name for each in SNIPPETS}) == len(SNIPPETS)
