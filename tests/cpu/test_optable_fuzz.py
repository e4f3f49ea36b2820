"""The op table is safe: whatever an op is called with, it may raise, but it may not crash, return memory that it was not
given, or differ from its own rule."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from weft.ir.optable import OPS

HERE = Path(__file__).parent
NAMES = sorted(OPS)
PARTS = 8


def run(names: list[str], trials: int, seed: int, poison: int) -> list[str]:
    """The fuzzer's lines. Free memory is poisoned too: glibc fills it where MALLOC_PERTURB_ is set."""
    environment = os.environ | {
        "MALLOC_PERTURB_": str(poison), "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", str(HERE / "op_fuzz.py"), str(seed), str(trials), str(poison), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert done.returncode == 0, f"the process ended with {done.returncode} at: {done.stderr[-2000:]}"
    return [line for line in done.stdout.splitlines() if " → " in line]  # LAPACK complains there, too


def faults(names: list[str], trials: int, seed: int = 0) -> list[str]:
    first, second = run(names, trials, seed, 85), run(names, trials, seed, 170)
    assert len(first) == len(second) == len(names) * trials
    broken = [line for line in first if "→ FAULT" in line]
    leaking = [f"{a}\n  differs with other memory around it: {b}" for a, b in zip(first, second, strict=True) if a != b]
    return broken + leaking


def test_a_sample_of_every_op_is_safe() -> None:
    assert faults(NAMES, 6) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_op_is_safe(part: int) -> None:
    assert faults(NAMES[part::PARTS], 400, seed=1) == []


def test_reading_past_the_end_would_be_noticed() -> None:
    """The fuzzer's own poison: what lies beside an operand differs between its two runs."""
    sys.path.insert(0, str(HERE))
    from op_fuzz import Maker, digest

    beside = [Maker(0, poison)._strided(build_three()).as_strided((4,), (1,), 32) for poison in (85, 170)]
    assert digest((beside[0],)) != digest((beside[1],))


def build_three():
    import torch

    return torch.ones(3)


def test_median_of_an_expanded_tensor_does_not_read_its_neighbours() -> None:
    """PyTorch itself does: [4, 4] along the expanded dimension came back as what lay beside it."""
    import torch

    from weft.execute import kernels

    memory = torch.tensor([4.0, -3.0, -3.0, -3.0])
    x = memory[:1].reshape(1, 1).expand(2, 1)
    values, places = kernels.call("nanmedian.dim", (x, 0))
    assert values.tolist() == [4.0]
    assert places.tolist() == [0]


def test_the_least_integer_divided_by_minus_one_does_not_end_the_process() -> None:
    import torch

    from weft.errors import BoundsError
    from weft.execute import kernels

    with pytest.raises(BoundsError, match="does not fit"):
        kernels.call("div.Tensor_mode", (torch.tensor([-(2**63)]), torch.tensor([-1]), "trunc"))
