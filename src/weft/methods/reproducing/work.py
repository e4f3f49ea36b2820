"""A paper's run in parts: each is a method's result, kept in a folder and not run again; and why one could not be had.

work.part("capital", function_vector, model, pairs, shots=10)      # the result, or None; then work.reasons["capital"]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import weft
from weft.methods.files import load
from weft.methods.papers import Paper
from weft.methods.result import Result

MARK = "reproduce"
"""In a part's settings: what it was asked for."""


@dataclass
class Work:
    """What was asked for, and what there is so far."""

    paper: Paper
    model: Any
    values: Mapping[str, Any]
    seed: int
    only_right: bool | None
    """None: right ones only, and all of them in a part where too few are right."""
    own: bool
    """Whether the model is one of the paper's."""
    progress: bool
    folder: Path | None
    results: dict[str, Result] = field(default_factory=dict[str, Result])
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    unfiltered: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    partial: str = ""
    """Why nothing can be held against the paper though the model is its own: a mean over some of its tasks."""
    stopped: str = ""

    def part(self, name: str, method: Callable[..., Any], *args: Any, **asked: Any) -> Any:
        """A method's result on this model; None, and the reason, where it could not be had."""
        if self.stopped:
            self.reasons[name] = f"left out: {self.stopped}"
            return None
        wanted = self._wanted(name, method, args, asked)
        found = self._kept(name, wanted) or self._run(name, method, args, asked)
        if found is None:
            return None
        if MARK not in found.settings and not found.stopped:
            wanted["unfiltered"] = self.unfiltered.get(name, "")
            found = replace(found, settings={**found.settings, MARK: wanted})
            if self.folder is not None:
                found.save(self.folder / f"{name}.safetensors")
        if why := found.settings.get(MARK, {}).get("unfiltered"):
            self.unfiltered[name] = why
        self.stopped = f"{name} was stopped {found.stopped}" if found.stopped else ""
        self.results[name] = found
        return found

    def _run(self, name: str, method: Callable[..., Any], args: tuple[Any, ...], asked: dict[str, Any]) -> Any:
        ways = (self.only_right,) if self.only_right is not None else (True,) if self.own else (True, False)
        for only_right in ways:
            try:
                found = method(
                    self.model, *args, **asked, only_right=only_right, seed=self.seed, progress=self.progress
                )
            except (weft.errors.ProgramError, weft.errors.TokenError) as error:
                # The first reason stays: it says what the model could not do.
                self.reasons.setdefault(name, error.message)
                continue
            if len(ways) > 1 and not only_right:
                self.unfiltered[name] = self.reasons.pop(name)
            return found
        return None

    def _wanted(self, name: str, method: Any, args: tuple[Any, ...], asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a kept part must have been asked for, as JSON has it."""
        own = {
            "paper": self.paper.name, "part": name, "method": method.__name__, "of": [repr(each) for each in args],
            "asked": {each: repr(value) for each, value in asked.items()}, "only_right": repr(self.only_right),
            "seed": self.seed, "model": self.model.card.name,
        }  # fmt: skip
        return json.loads(json.dumps(own | {"weights": self.weights})) if self.folder is not None else own

    @cached_property
    def weights(self) -> Any:
        """The hash of the model's weights, of a record of one small run."""
        with self.model.session() as s:
            s.run("Q").resid_post[0][:, -1].save("x")
        return s.record.fingerprint.get("weights")

    def _kept(self, name: str, wanted: Mapping[str, Any]) -> Any:
        path = self.folder / f"{name}.safetensors" if self.folder is not None else None
        if path is None or not path.is_file():
            return None
        found = load(path)
        mark = {key: value for key, value in found.settings.get(MARK, {}).items() if key != "unfiltered"}
        if other := sorted(key for key in {**mark, **wanted} if mark.get(key) != wanted.get(key)):
            raise weft.errors.ProgramError(
                f"{path} is of another run: its {', '.join(other)} are not those asked for now; give another folder, "
                "or remove that file"
            )
        return found
