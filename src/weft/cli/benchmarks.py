"""Find and run the scripts of benchmarks/, each of which prints the figures it is about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from weft.errors import NotFoundError

FOLDER = Path(__file__).parents[3] / "benchmarks"


def run_bench(name: str, arguments: list[str]) -> int:
    """Run benchmark `name` with `arguments`, or all of them, or with no name list them; the exit status."""
    if not FOLDER.is_dir():
        raise NotFoundError(f"benchmarks come with a clone of the repository, not with the package: no folder {FOLDER}")
    scripts = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if not path.stem.startswith("_")}
    if not name:
        print("\n".join(scripts) or "there are none yet")
        return 0
    if name != "all" and name not in scripts:
        raise NotFoundError(f"no benchmark is called {name!r}; there are {', '.join(scripts)}, and all")
    chosen = scripts.values() if name == "all" else [scripts[name]]
    return max((_run(path, arguments) for path in chosen), default=0)


def _run(path: Path, arguments: list[str]) -> int:
    # A process each: a benchmark must not run in one that another has warmed up.
    return subprocess.run([sys.executable, str(path), *arguments], check=False).returncode
