"""Run the drawn experiments against each mutant; exit status 1 if one survives, or no longer fits the source."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.mutants.decoding import DECODING
from tests.mutants.planning import PLANNING
from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
ALL = (*MUTANTS, *PLANNING, *DECODING)
FAMILIES = ("gpt2", "llama", "mistral", "qwen2")
PATIENCE = 1800
"""Seconds until a process is given up that has died without a word."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="names of mutants, or parts of names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--source", type=Path, default=ROOT / "src", help="the folder that holds weft/")
    given = parser.parse_args()
    chosen = [each for each in ALL if not given.only or any(part in each.name for part in given.only)]
    warm()
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "whole"  # what others change in the meantime is not tried
        shutil.copytree(given.source / "weft", source / "weft", ignore=shutil.ignore_patterns("__pycache__"))
        with context.Pool(given.jobs, maxtasksperchild=1) as pool:  # a process for each: weft is imported anew
            whole = baseline(pool.apply(_baseline, (source,)))
            waiting = [(each, pool.apply_async(report, (each, source, whole))) for each in chosen]
            missed = 0
            for mutant, result in waiting:
                try:
                    caught, text = result.get(PATIENCE)
                except multiprocessing.TimeoutError:
                    caught, text = True, f"caught    {mutant.name} ({mutant.file}): its process died"
                missed += not caught
                print(text, flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutants caught")
    return 1 if missed else 0


def warm() -> None:
    """Import once, for all, what takes long and is none of weft's."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    for name in ("torch", "tokenizers", "transformers", "pytest", "tests.tiny"):
        importlib.import_module(name)
    for family in FAMILIES:
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    assert not any(name.split(".")[0] == "weft" for name in sys.modules), "weft has to come from the mutants' copies"


class Whole(NamedTuple):
    """What the seeds do while weft is whole: what each exercises, and which the engine runs."""

    features: dict[int, list[str]]
    planned: list[int]


def _baseline(source: Path) -> dict:
    sys.path.insert(0, str(source))
    from tests.mutants import trial

    return trial.baseline(source)


def baseline(found: dict) -> Whole:
    """Seeds that fail without any fault would catch everything: they are left out, and told."""
    if found["failing"]:
        print(f"left out, since they fail without any mutant: seeds {found['failing']}", flush=True)
    kept = {seed: has for seed, has in found["features"].items() if seed not in found["failing"]}
    return Whole(kept, found["planned"])


def report(mutant: Mutant, source: Path, whole: Whole) -> tuple[bool, str]:
    """Try one mutant: whether it was caught, and what came of it."""
    started = time.perf_counter()
    text = (source / "weft" / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        return False, f"STALE     {mutant.name}: its text occurs {text.count(mutant.old)} times in {mutant.file}"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(source / "weft", copy / "weft")
        (copy / "weft" / mutant.file).write_text(text.replace(mutant.old, mutant.new))
        sys.path.insert(0, str(copy))
        has = whole.features
        ordered = sorted(has, key=lambda seed: (not set(mutant.features) & set(has[seed]), seed))
        found = _noticed(copy, mutant, ordered, whole.planned)
    caught = bool(found["caught"])
    what = found["caught"] or f"by {found['tried']} experiments; it breaks: {mutant.breaks}"
    seconds = time.perf_counter() - started
    return caught, f"{'caught   ' if caught else 'SURVIVED '} {mutant.name} ({mutant.file}, {seconds:.0f} s): {what}"


def _noticed(copy: Path, mutant: Mutant, ordered: list[int], planned: list[int]) -> dict:
    try:
        from tests.mutants import trial
    except Exception as error:
        return {"caught": f"it does not run: {type(error).__name__}: {error}"}
    seeds = [*dict.fromkeys((*mutant.seeds, *ordered))]
    return trial.limited(copy, seeds, set(planned), mutant.tests)


if __name__ == "__main__":
    sys.exit(main())
