"""One part after the other, each written down when it is done, so that a stopped atlas goes on where it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

import weft
from weft.atlas import abilities, functions, induction, predicates, report, stream
from weft.atlas.part import Context, Part, Skip
from weft.methods import Result, load

STATE = "atlas.json"


@dataclass(frozen=True)
class Settings:
    """How much is done: `n` prompts a task (other numbers follow from it), drawn from `seed`."""

    n: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Atlas:
    """What was found, by part; `skipped` says why a part was left out; `stopped` what an interruption left undone."""

    model: str
    report: Path
    found: Mapping[str, Result] = field(repr=False)
    skipped: Mapping[str, str]
    stopped: str = ""
    seconds: float = 0.0

    def __getitem__(self, part: str) -> Result:
        if part not in self.found:
            why = self.skipped.get(part, f"there are {', '.join(self.found)}")
            raise KeyError(f"no part {part!r} here: {why}")
        return self.found[part]

    def to_data(self) -> dict[str, Any]:
        """As JSON has it: what each part says, and why others say nothing."""
        parts = {each.name: each for each in parts_of(self.found)}
        says = {name: {"title": parts[name].title, "says": list(parts[name].says(found)), "heads": _heads(found)}
                for name, found in self.found.items()}  # fmt: skip
        return {"model": self.model, "report": str(self.report), "found": says, "skipped": dict(self.skipped),
                "stopped": self.stopped, "seconds": round(self.seconds, 1)}  # fmt: skip


def atlas(model: Any, out: str | Path, settings: Settings = Settings(), *, progress: bool = True) -> Atlas:
    """What the model can do and by which mechanisms, written to the folder `out`; `out`/atlas.html is the report.

        found = atlas(weft.load("bobbin"), "bobbin-atlas"); found.report, found.skipped
        atlas(weft.connect(url).model("bobbin"), "bobbin-atlas", Settings(n=50))

    Every part that is done is kept in `out`/results, as one safetensors file with its records, so the same call goes on
    where it was stopped (Ctrl-C stops after the step it is in). ProgramError if `out` has the atlas of another model or of
    other settings.
    """
    if settings.n < 16:
        raise weft.errors.ProgramError(f"n={settings.n} prompts say too little; give at least 16: Settings(n=16)")
    began, folder = time.perf_counter(), Path(out)
    state = _State.open(folder, {"model": fingerprint(model), **asdict(settings)})
    stopped = ""
    for part in _all(state):
        if part.name in state.found or part.name in state.skipped:
            continue
        context = Context(model, settings.n, settings.seed, progress, state.found)
        try:
            result = part.run(context)
        except Skip as why:
            state.skip(part.name, str(why))
            continue
        except KeyboardInterrupt:
            stopped = f"in {part.name}"
            break
        if result.stopped:
            stopped = f"in {part.name}, {result.stopped}"
            break
        state.keep(part.name, result)
    seconds = time.perf_counter() - began
    page = report.write(folder / "atlas.html", model, parts_of(state.found), state.found, state.skipped, stopped)
    return Atlas(model.card.name, page, state.found, state.skipped, stopped, seconds)


FIXED = (abilities.PART, induction.PART, stream.PART, functions.SCREEN)


def parts_of(found: Mapping[str, Result]) -> list[Part]:
    """The parts of an atlas, as far as what was found so far decides them."""
    more = functions.vectors(found["functions"]) if "functions" in found else []
    return [*FIXED, *more, predicates.PART]


def _all(state: _State) -> Iterator[Part]:
    """The parts in their order; which functions are looked into is known only once they were screened."""
    yield from FIXED
    yield from parts_of(state.found)[len(FIXED) :]


def fingerprint(model: Any) -> dict[str, Any]:
    """Which weights these are, as a record has it."""
    with model.session() as s:
        s.run(torch.zeros(1, 1, dtype=torch.long)).logits[0, 0, 0].save("one")
    return dict(s.record.fingerprint)


@dataclass
class _State:
    """What is done, in memory and in the folder."""

    folder: Path
    key: dict[str, Any]
    found: dict[str, Result]
    skipped: dict[str, str]

    @classmethod
    def open(cls, folder: Path, key: dict[str, Any]) -> _State:
        (folder / "results").mkdir(parents=True, exist_ok=True)
        if not (folder / STATE).exists():
            return cls(folder, key, {}, {})
        known = json.loads((folder / STATE).read_text())
        if known["key"] != json.loads(json.dumps(key)):
            raise weft.errors.ProgramError(
                f"{folder} has the atlas of another model or of other settings ({_said(known['key'])}, not {_said(key)}); "
                "give another folder, or delete this one"
            )
        return cls(folder, key, {name: load(_file(folder, name)) for name in known["found"]}, known["skipped"])

    def keep(self, name: str, result: Result) -> None:
        result.save(_file(self.folder, name))
        self.found[name] = result
        self._write()

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why
        self._write()

    def _write(self) -> None:
        beside = self.folder / f"{STATE}.new"
        beside.write_text(json.dumps({"key": self.key, "found": list(self.found), "skipped": self.skipped}, indent=1))
        os.replace(beside, self.folder / STATE)


def _file(folder: Path, part: str) -> Path:
    return folder / "results" / f"{part.replace('/', '-')}.safetensors"


def _said(key: Mapping[str, Any]) -> str:
    return f"{key['model'].get('name') or key['model'].get('id')}, n={key['n']}, seed={key['seed']}"


def _heads(found: Result) -> list[list[int]]:
    return [list(each) for each in getattr(found, "heads", ())]
