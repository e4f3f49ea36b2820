"""The direction of imports holds, and the contracts that say so can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BROKEN = [
    ("ir/bad.py", "import torch", "does not load torch"),
    ("serve/bad.py", "from weft.models import load", "does not load torch"),
    ("ir/bad.py", "import weft.trace", "ir stands on errors alone"),
    ("trace/bad.py", "import weft.execute", "tracing does not know"),
    ("methods/bad.py", "from weft.ir import nodes", "only the public weft"),
]


def lint(root: Path) -> tuple[int, str]:
    # The copy's source must come before the installed package, or the linter would read the good tree.
    env = os.environ | {"PYTHONPATH": str(root / "src"), "COLUMNS": "200"}
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold() -> None:
    code, said = lint(ROOT)
    assert code == 0, said


@pytest.mark.parametrize(("file", "line", "contract"), BROKEN)
def test_a_contract_can_fail(copy: Path, file: str, line: str, contract: str) -> None:
    (copy / "src/weft" / file).write_text(line + "\n")
    code, said = lint(copy)
    broken = [row for row in said.splitlines() if row.strip().endswith("BROKEN")]
    assert code != 0
    assert any(contract in row for row in broken), said


def test_import_weft_is_light() -> None:
    code = "import sys, weft; assert not {'torch', 'transformers', 'numpy', 'xarray'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
