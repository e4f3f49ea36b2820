"""In a process whose weft may hold a fault: run drawn experiments until one notices."""

from __future__ import annotations

import contextlib
import io
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from tests.generated import Experiment, compare, draw
from tests.generated.hooks_oracle import Unsupported, check

import weft.execute.planned
import weft.execute.turns

SEEDS, TRIED, HOOKED = 160, 50, 50
ROOT = Path(__file__).parents[2]
CPU, WALL = 240, 1500
"""Seconds for one mutant; one that makes an experiment hang is caught too."""


class Hung(BaseException):
    """An experiment does not end. No Exception, since those are part of what experiments may give."""


def baseline(source: Path) -> dict[str, Any]:
    """What each seed exercises, and which fail though weft is whole."""
    _begin(source)
    drawn = [draw(seed) for seed in range(SEEDS)]
    verdicts = {each.seed: compare(each) for each in drawn}
    failing = [each.seed for each in drawn if verdicts[each.seed].kind == "different" or hooked(each)]
    planned = [seed for seed, verdict in verdicts.items() if verdict.plan == "planned"]
    return {"failing": failing, "planned": planned, "features": {each.seed: sorted(each.features) for each in drawn}}


def _begin(source: Path) -> None:
    torch.set_num_threads(1)
    assert Path(weft.__file__ or "").is_relative_to(source), f"weft came from {weft.__file__}"


def limited(source: Path, seeds: list[int], planned: set[int], tests: Sequence[str]) -> dict[str, Any]:
    """What notices, the `tests` by name first; whoever takes too long has hung."""

    def hung(*_: object) -> NoReturn:
        raise Hung

    _begin(source)
    for name, timer, limit in ((signal.SIGPROF, signal.ITIMER_PROF, CPU), (signal.SIGALRM, signal.ITIMER_REAL, WALL)):
        signal.signal(name, hung)
        signal.setitimer(timer, limit)
    try:
        return _by_tests(tests) or tried(seeds, planned)
    except Exception as error:
        return {"caught": f"it does not run: {type(error).__name__}: {error}"[:200]}
    except Hung:
        return {"caught": f"it hung for {CPU} s of work, or {WALL} s"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _by_tests(tests: Sequence[str]) -> dict[str, Any]:
    """The named tests, if one of them fails."""
    if not tests:
        return {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        names = [str(ROOT / test) for test in tests]
        imported = "ignore::pytest.PytestAssertRewriteWarning"  # some helpers are, by the draws
        status = pytest.main(["-q", "-x", "-W", imported, "-p", "no:cacheprovider", "--rootdir", str(ROOT), *names])
    lines = [line for line in said.getvalue().splitlines() if line.startswith(("FAILED", "ERROR"))]
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return {"caught": "", "tried": f"no tests of that name: {said.getvalue()[-300:]}; 0"}
    return {"caught": lines[0][:200] if lines else "a named test failed"} if status else {}


def tried(seeds: list[int], planned: set[int]) -> dict[str, Any]:
    """The first experiment that notices, or how many there were."""
    # weft's own check at first use would turn a faulty engine off before an experiment could notice.
    weft.execute.planned.distrust = lambda *_: ""
    weft.execute.turns.undecoded = lambda *_: ""
    drawn, skipped, left = [], 0, 0
    for seed in seeds[:TRIED]:
        drawn.append(draw(seed))
        verdict = compare(drawn[-1])
        skipped += verdict.kind == "skipped"
        left += seed in planned and verdict.plan != "planned"
        if verdict.kind == "different":
            return {"caught": f"seed {seed}: engine against reference: {verdict.text[:160]}"}
    if skipped > len(drawn) / 5:
        return {"caught": f"{skipped} of {len(drawn)} draws are no longer legal"}
    if left > len(planned & {each.seed for each in drawn}) / 2:
        return {"caught": f"the engine left {left} of {len(drawn)} to the reference"}
    for experiment in drawn[:HOOKED]:
        if found := hooked(experiment):
            return {"caught": f"seed {experiment.seed}: {found[:160]}"}
    return {"caught": "", "tried": len(drawn)}


def hooked(experiment: Experiment) -> str:
    """What the tests of reference and plain hooks would say of this experiment; "" if nothing."""
    try:
        found = check(experiment)
    except Unsupported:
        return ""
    except Exception as error:
        return f"plain hooks: {type(error).__name__}: {error}"
    return f"reference against plain hooks: {found}" if found else ""
