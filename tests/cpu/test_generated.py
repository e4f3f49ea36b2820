"""Random experiments: the engine against the reference, and the reference against plain hooks.

A failing seed prints its program; `python -m tests.generated SEED --shrink` leaves out what does not matter.
"""

from __future__ import annotations

from collections import Counter

import pytest
from tests.generated import FEATURES, Verdict, compare, draw
from tests.generated.draw import WIDE
from tests.generated.hooks_oracle import Unsupported, check

QUICK, ALL, CHUNK = 300, 2300, 20
HOOKED = 120
"""Seeds that are also held against plain hooks in `make test`; the rest of the quick ones in `make test-all`."""


def chunks(first: int, last: int) -> list[range]:
    return [range(at, min(at + CHUNK, last)) for at in range(first, last, CHUNK)]


def shown(seeds: range) -> str:
    return f"{seeds.start}-{seeds.stop - 1}"


def hold(seeds: range) -> None:
    """Every seed's values are the same under both plans; few are skipped, and the engine does most of the work."""
    verdicts = {seed: compare(draw(seed)) for seed in seeds}
    failed = {seed: verdict for seed, verdict in verdicts.items() if verdict.kind == "different"}
    assert not failed, told(failed)
    skipped = {seed: verdict.text for seed, verdict in verdicts.items() if verdict.kind == "skipped"}
    assert len(skipped) < 0.2 * len(seeds), f"too many draws are not legal: {skipped}"


def told(failed: dict[int, Verdict]) -> str:
    """Which seeds differ, and the first one's program."""
    seed, verdict = next(iter(failed.items()))
    return f"seeds {sorted(failed)} differ; seed {seed}:\n{draw(seed).source}\n\n{verdict.text}"


@pytest.mark.parametrize("seeds", chunks(0, QUICK), ids=shown)
def test_engine_and_reference_agree(seeds: range) -> None:
    hold(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", chunks(QUICK, ALL), ids=shown)
def test_engine_and_reference_agree_on_more(seeds: range) -> None:
    hold(seeds)


@pytest.mark.parametrize("seeds", chunks(WIDE, WIDE + 20), ids=shown)
def test_engine_and_reference_agree_on_other_families(seeds: range) -> None:
    hold(seeds)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", chunks(WIDE + 20, WIDE + 500), ids=shown)
def test_engine_and_reference_agree_on_more_of_other_families(seeds: range) -> None:
    hold(seeds)


def hooked(seeds: range) -> int:
    """How many of these seeds plain hooks could tell about; the reference agrees with all of those."""
    told = 0
    for seed in seeds:
        experiment = draw(seed)
        try:
            difference = check(experiment)
        except Unsupported:
            continue
        assert not difference, f"seed {seed}:\n{experiment.source}\n\n{difference}"
        told += 1
    return told


@pytest.mark.parametrize("seeds", chunks(0, HOOKED), ids=shown)
def test_the_reference_agrees_with_plain_hooks(seeds: range) -> None:
    assert hooked(seeds) >= CHUNK // 2


@pytest.mark.slow
@pytest.mark.parametrize("seeds", chunks(HOOKED, ALL), ids=shown)
def test_the_reference_agrees_with_plain_hooks_on_more(seeds: range) -> None:
    assert hooked(seeds) >= CHUNK // 2


def test_every_feature_is_drawn() -> None:
    drawn = Counter(feature for seed in range(QUICK) for feature in draw(seed).features)
    assert not {feature: drawn[feature] for feature in FEATURES if drawn[feature] < 3}
    assert not drawn.keys() - set(FEATURES)


def test_the_engine_runs_most_of_what_it_can() -> None:
    plans = Counter(compare(draw(seed)).plan for seed in range(60))
    assert plans["planned"] >= 36, plans


def test_a_draw_is_the_same_every_time() -> None:
    assert draw(5).source == draw(5).source
