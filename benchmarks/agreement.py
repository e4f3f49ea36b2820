"""Do engines agree on what a site is? The same tiny random checkpoints in weft, plain hooks, nnsight and TransformerLens.

    weft bench agreement                                  weft and plain hooks, every family: a minute or two
    weft bench agreement --peers PYTHON --write-docs      with the others, and docs/agreement.md
    weft bench agreement --only gemma2,llama

The other tools are the extra `bench`; those that this environment lacks are run by the Python given as --peers. Where two
differ, the identity of the site says who is right. Status 1 if weft differs from plain hooks and its identity fails, or if
an identity of weft's own values does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "src"))
warnings.simplefilter("ignore")

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from agreeing import checkpoints, verdicts  # noqa: E402
from agreeing.engines import ENGINES  # noqa: E402
from agreeing.identity import Truth  # noqa: E402
from agreeing.verdicts import Own, Verdicts, judge  # noqa: E402

NAMES = {"hooks": "plain hooks", "nnsight": "nnsight", "TransformerBridge": "TransformerBridge"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="weft bench agreement", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="model types, by commas")
    parser.add_argument("--engines", default=",".join(NAMES), help=f"by commas: {', '.join(NAMES)}")
    parser.add_argument("--peers", default="", help="a Python whose environment holds the other tools")
    parser.add_argument(
        "--folder", type=Path, help="keep checkpoints and values here, and do not make again what is there"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--write-docs", action="store_true", help="write docs/agreement.md")
    given = parser.parse_args()
    for engine in given.engines.split(","):
        if engine not in NAMES:
            parser.error(f"--engines {engine!r} is not known; there are {', '.join(NAMES)}")
    return given


def main() -> int:
    given = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        kinds = made(folder / "checkpoints", given.only)
        absent = {}
        for engine in ["weft", *given.engines.split(",")]:
            if why := run(engine, folder, given.peers):
                absent[engine] = why
        own, found = compared(folder, kinds, [each for each in given.engines.split(",") if each not in absent])
    return report(given, own, found, absent)


def made(folder: Path, only: str) -> list[str]:
    """Save the checkpoints; the names of their folders."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    makers = checkpoints.makers()
    kinds = [kind for kind in makers if not only or kind in only.split(",")]
    folder.mkdir(parents=True, exist_ok=True)
    return [checkpoints.save(kind, makers[kind], folder).name for kind in kinds]


def run(engine: str, folder: Path, peers: str) -> str:
    """Have an engine read every checkpoint, in a process of its own; why it cannot, or ""."""
    needs = ENGINES[engine][0]
    here = importlib.util.find_spec(needs) is not None
    if not here and not peers:
        return f"{needs} is not in this environment: give --peers"
    if _done(folder, engine):
        return ""
    paths = os.pathsep.join((str(HERE), str(HERE.parent / "src")))
    command = [sys.executable if here else peers, "-m", "agreeing.engines", engine, "checkpoints", engine]
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    return "" if done.returncode == 0 else f"it ended with status {done.returncode}: {done.stderr[-300:]}"


def _done(folder: Path, engine: str) -> bool:
    """Whether every checkpoint there is has been read by this engine, or has failed."""
    told = folder / engine / "failed.json"
    known = {path.stem for path in (folder / engine).glob("*.safetensors")} | set(
        json.loads(told.read_text()) if told.exists() else ()
    )
    return told.exists() and {path.name for path in (folder / "checkpoints").iterdir()} <= known


def compared(folder: Path, kinds: list[str], engines: list[str]) -> tuple[Own, list[Verdicts]]:
    """Hold every engine's values against weft's, and weft's against their identities."""
    own, found = Own(), [Verdicts(NAMES[engine]) for engine in engines]
    failed = [json.loads((folder / engine / "failed.json").read_text()) for engine in engines]
    own.broken += [f"{kind}: {why}" for kind, why in json.loads((folder / "weft" / "failed.json").read_text()).items()]
    for kind in kinds:
        if not (folder / "weft" / f"{kind}.safetensors").exists():
            continue  # told with what is broken
        truth = Truth(folder / "checkpoints" / kind, load_file(folder / "weft" / f"{kind}.safetensors"))
        shown = kind.replace("--", ", ").replace("-", " ")
        own.add(shown, truth)
        for each, engine, why in zip(found, engines, failed, strict=True):
            if kind in why:
                each.failed[shown] = why[kind]
            else:
                judge(each, shown, load_file(folder / engine / f"{kind}.safetensors"), truth)
    return own, found


def report(given: argparse.Namespace, own: Own, found: list[Verdicts], absent: dict[str, str]) -> int:
    """Print what came of it, and write the page if asked; the exit status."""
    bad = [*own.broken, *(each for every in found for each in verdicts.wrong(every))]
    if given.write_docs:
        verdicts.PAGE.write_text(verdicts.page(found, own, versions(given.peers), absent))
    if given.json:
        told = [
            {"engine": each.engine, "cells": each.cells, "failed": each.failed, "details": each.details}
            for each in found
        ]
        print(
            json.dumps(
                {"engines": told, "held": own.held, "undecided": own.undecided, "wrong": bad, "absent": absent},
                indent=1,
            )
        )
        return 1 if bad else 0
    print(f"weft's own values: {own.held} hold to their identity, {len(own.broken)} do not, {own.undecided} have none")
    for each in found:
        counts = ", ".join(f"{each.count(mark)} {mark}" for mark in verdicts.WORDS if mark)
        print(f"{each.engine:<20} {counts}; {len(each.failed)} cannot be opened")
    for engine, why in absent.items():
        print(f"{engine:<20} not run: {why}")
    print("\n".join(["", "weft is wrong, or nothing decides:", *bad] if bad else ["", "nowhere is weft wrong"]))
    return 1 if bad else 0


def versions(peers: str) -> str:
    """Versions of everything that took part."""
    code = (
        "import importlib.metadata as m\n"
        "for name in ('transformers', 'torch', 'nnsight', 'transformer-lens'):\n"
        "    try: print(name, m.version(name))\n"
        "    except m.PackageNotFoundError: pass"
    )
    done = subprocess.run([peers or sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ", ".join(done.stdout.split("\n")[:-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
