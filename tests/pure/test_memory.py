"""How much an experiment takes and how many rows a budget allows: numbers that can be worked out by hand."""

from __future__ import annotations

import pytest

from fakes import D_HEAD, D_MODEL, D_VOCAB, HEADS, LAYERS, Builder, fake_card
from weft.errors import LimitError
from weft.ir.causality import order_by
from weft.ir.check import check
from weft.plan.memory import (
    COPIES,
    DEFAULT,
    LEAST,
    Amount,
    Estimate,
    at_most,
    bytes_per_token,
    estimate,
    parsed,
    within,
)
from weft.plan.rowwise import rowwise

CARD = fake_card()
FLOAT = 4


@pytest.mark.parametrize(
    ("given", "expected"),
    [(500_000_000, 500_000_000), ("500MB", 500_000_000), ("2 GiB", 2 << 30), ("1.5kB", 1500), ("7", 7), (None, None)],
)
def test_a_budget_in_words(given: int | str | None, expected: int | None) -> None:
    assert parsed(given) == expected


@pytest.mark.parametrize("given", ["lots", "", "-5MB", 0, "5 PB", True, "1.2.3MB", float("nan")])
def test_what_is_no_budget_is_refused(given: int | str) -> None:
    with pytest.raises(LimitError, match='such as "500MB"'):
        parsed(given)


def test_limits_grow_with_the_budget_between_the_least_and_the_usual() -> None:
    assert within(1, CARD) == LEAST
    assert within(None, CARD) == within(1 << 40, CARD) == DEFAULT
    some = within(50 * 1000 * bytes_per_token(CARD) // 10, CARD)  # a fifth of it is for a pass
    assert some.tokens == 1000


def two_runs(rows: int) -> Estimate:
    """Runs of `rows` rows of 3 tokens, of which z[1] and the logits of one are read."""
    b = Builder()
    first, second = b.run([[1, 2, 3]] * rows), b.run([[4, 5, 6]] * rows)
    b.save("z", b.read(first, "z", 1))
    b.save("logits", b.read(second, "logits"))
    checked = check(b.experiment(), CARD)
    found = rowwise(b.experiment(), checked, order_by(CARD), rows)
    return estimate(b.experiment(), checked, found.state, found.goes_by_rows, CARD, DEFAULT, rows)


def test_keys_values_and_sites_of_the_base_rows() -> None:
    found, tokens = two_runs(8), 2 * 8 * 3
    assert found.keys == Amount(tokens * 2 * LAYERS * HEADS * D_HEAD * FLOAT, 0)
    assert found.sites == Amount(tokens * (HEADS * D_HEAD + D_MODEL) * FLOAT, 0)  # z, and the last stream
    assert found.logits == COPIES * 8 * 3 * D_VOCAB * FLOAT
    assert found.in_pass == tokens * bytes_per_token(CARD)


def test_rows_are_as_many_as_fit_and_slices_as_equal_as_can_be() -> None:
    found = two_runs(8)
    assert found.rows(8, found.total(8)) == 8
    assert found.rows(8, found.total(8) - 1) == 4  # 7 would fit, but two slices of 4 are smaller
    assert found.rows(8, found.total(3)) == 3
    assert found.rows(8, 1) == 1


def test_the_quick_bound_is_above_the_estimate() -> None:
    b = Builder()
    run = b.run([[1, 2, 3]] * 8)
    for layer in range(LAYERS):
        for site in ("q", "z", "mlp_post", "resid_post"):
            b.save(f"{site}{layer}", b.read(run, site, layer))
    checked = check(b.experiment(), CARD)
    found = rowwise(b.experiment(), checked, order_by(CARD), 8)
    sizes = estimate(b.experiment(), checked, found.state, found.goes_by_rows, CARD, DEFAULT, 8)
    assert at_most(b.experiment(), CARD) >= sizes.total(8)
