"""The faults that `make mutants` puts in still fit the source: one that does not would be tried no more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.mutants.decoding import DECODING
from tests.mutants.planning import PLANNING
from tests.mutants.table import MUTANTS, Mutant

SOURCE = Path(__file__).parents[2] / "src" / "weft"
ALL = (*MUTANTS, *PLANNING, *DECODING)


@pytest.mark.parametrize("mutant", ALL, ids=lambda each: each.name)
def test_a_mutants_text_stands_once_in_its_file(mutant: Mutant) -> None:
    assert (SOURCE / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_mutants_go_by_names_of_their_own() -> None:
    assert [name for name, times in Counter(each.name for each in ALL).items() if times > 1] == []
