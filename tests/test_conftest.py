"""In CI, where the real models are, a skipped test is a failed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_skipped():
    pytest.skip("{reason}")
"""


def outcome(tmp_path: Path, reason: str, ci: str, assets: bool) -> str:
    tests = tmp_path / "project" / "tests"
    tests.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("conftest.py"), tests)
    (tests / "test_it.py").write_text(TESTS.format(reason=reason))
    if assets:
        (tmp_path / "shared" / "assets").mkdir(parents=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(tests)]
    env = os.environ | {"CI": ci}
    done = subprocess.run(command, cwd=tmp_path / "project", env=env, capture_output=True, text=True, timeout=300)
    return done.stdout.splitlines()[-1].split(" in ")[0]


@pytest.mark.parametrize(
    ("reason", "ci", "assets", "expected"),
    [
        ("no reason", "true", True, "1 failed"),
        ("needs a CUDA device", "true", True, "1 skipped"),
        ("no reason", "", True, "1 skipped"),
        ("no reason", "true", False, "1 skipped"),
    ],
)
def test_a_skip_fails_only_in_ci(tmp_path: Path, reason: str, ci: str, assets: bool, expected: str) -> None:
    assert outcome(tmp_path, reason, ci, assets) == expected
