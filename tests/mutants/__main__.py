"""Run the drawn experiments against each mutant; exit status 1 if one survives, or no longer fits the source."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.mutants.decoding import DECODING
from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TRIAL = "tests.mutants.trial"
LIMIT = 240
"""Seconds for one mutant; one that makes an experiment hang is caught too."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="names of mutants, or parts of names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="the folder that holds weft/")
    given = parser.parse_args()
    chosen = [each for each in (*MUTANTS, *DECODING) if not given.only or any(part in each.name for part in given.only)]
    whole = baseline(given.source)
    with ThreadPoolExecutor(given.jobs) as pool:
        told = list(pool.map(lambda mutant: report(mutant, given.source, whole), chosen))
    missed = told.count(False)
    print(f"{len(chosen) - missed} of {len(chosen)} mutants caught")
    return 1 if missed else 0


class Whole(NamedTuple):
    """What the seeds do while weft is whole: what each exercises, and which the engine runs."""

    features: dict[int, list[str]]
    planned: list[int]


def baseline(source: Path) -> Whole:
    """Seeds that fail without any fault would catch everything: they are left out, and told."""
    found = trial(source, [])
    if found["failing"]:
        print(f"left out, since they fail without any mutant: seeds {found['failing']}", flush=True)
    kept = {int(seed): has for seed, has in found["features"].items() if int(seed) not in found["failing"]}
    return Whole(kept, found["planned"])


def report(mutant: Mutant, source: Path, whole: Whole) -> bool:
    """Try one mutant and tell what came of it; whether it was caught."""
    started = time.perf_counter()
    text = (source / "weft" / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        print(f"STALE     {mutant.name}: its text occurs {text.count(mutant.old)} times in {mutant.file}", flush=True)
        return False
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(source / "weft", copy / "weft", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "weft" / mutant.file).write_text(text.replace(mutant.old, mutant.new))
        has = whole.features
        ordered = sorted(has, key=lambda seed: (not set(mutant.features) & set(has[seed]), seed))
        args = ["--seeds", *map(str, (*mutant.seeds, *ordered)), "--planned", *map(str, whole.planned)]
        try:
            found = trial(copy, args)
        except subprocess.TimeoutExpired:
            found = {"caught": f"it hung for {LIMIT} s"}
    caught = bool(found["caught"])
    what = found["caught"] or f"by {found['tried']} experiments; it breaks: {mutant.breaks}"
    print(f"{'caught   ' if caught else 'SURVIVED '} {mutant.name} ({mutant.file}, {time.perf_counter() - started:.0f} s): "
          f"{what}", flush=True)  # fmt: skip
    return caught


def trial(source: Path, args: list[str]) -> dict:
    """What `tests.mutants.trial` says when weft comes from `source`."""
    env = os.environ | {"PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", TRIAL, str(source), *args]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT)
    lines = done.stdout.strip().splitlines()
    if not lines:
        return {"caught": f"it does not run: {done.stderr.strip().splitlines()[-1:]}", "failing": []}
    return json.loads(lines[-1])


if __name__ == "__main__":
    sys.exit(main())
