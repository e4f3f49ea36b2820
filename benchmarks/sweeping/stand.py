"""A contestant ready to run a task, in this process or in another one with another environment.

The other process is `python -m sweeping.stand`: one JSON object a line in, one a line out; results travel as safetensors.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sweeping import machine
from sweeping.tasks import TASKS, small

RIVALS = {
    "weft": "weft_session",
    "weft one by one": "weft_single",
    "bare": "bare",
    "hooks": "hooks",
    "expert": "expert",
    "nnsight": "nnsight_loop",
    "transformer-lens": "transformer_lens_helpers",
    "pyvene": "pyvene_loop",
}
HERE = Path(__file__).parents[1]


class Setting(NamedTuple):
    """What a contestant is to run."""

    rival: str
    task: str
    model: str
    threads: int
    quick: bool = False
    sample: int = 0
    plan: str = "auto"


class Run(NamedTuple):
    """One run: seconds on the clock and core-seconds for the task done once, its result, and what others took of what
    there was."""

    seconds: float
    core: float
    result: torch.Tensor
    others: float
    there: float


class Unable(Exception):
    """This contestant does not do this task, for the reason given."""


def library(rival: str) -> str:
    """What a contestant needs to be importable, found without importing torch's world."""
    source = (HERE / "sweeping" / "rivals" / f"{RIVALS[rival]}.py").read_text()
    return source.split('LIBRARY = "', 1)[1].split('"', 1)[0]


def has(rival: str) -> bool:
    return importlib.util.find_spec(library(rival)) is not None


class Here:
    """A contestant of this process."""

    pid: tuple[int, ...] = ()

    def __init__(self, setting: Setting) -> None:
        torch.set_num_threads(setting.threads)
        task = TASKS[setting.task]
        module = importlib.import_module(f"sweeping.rivals.{RIVALS[setting.rival]}")
        reason = module.CANNOT.get(setting.task) or module.CANNOT.get(task.calls)
        if reason or not hasattr(module, task.calls):
            raise Unable(reason or "not written")
        if hasattr(module, "PLAN"):
            module.PLAN = setting.plan
        self.function = getattr(module, task.calls)
        self.work: dict[str, Any] = getattr(module, "WORK", {})
        sample = setting.sample if sampled(setting.rival, task.calls) else 0
        self.data = task.data(setting.model, setting.quick, sample)
        self.inner = task.inner
        started = time.perf_counter()
        self.handle = _handle(module, setting.model)
        self.function(self.handle, small(self.data))
        self.first = time.perf_counter() - started

    def run(self) -> Run:
        self.work.clear()
        return timed(lambda: self.function(self.handle, self.data), self.inner)

    def close(self) -> None:
        return None


def timed(function: Callable[[], torch.Tensor], inner: int = 1) -> Run:
    """A function's run in this process, done `inner` times."""
    before, spent = machine.now(), time.process_time()
    for _ in range(inner):
        result = function()
    after, spent = machine.now(), time.process_time() - spent
    clock = after.clock - before.clock
    return Run(clock / inner, spent / inner, result.detach(), *machine.others(before, after))


def sampled(rival: str, calls: str) -> bool:
    """Whether a contestant does a patch for about what the next one costs, so that a part of a sweep tells the whole.

    weft's work for one patch depends on the others; so does the expert's and nnsight's where they make one batch of all.
    """
    if rival in ("weft", "weft one by one", "bare"):
        return False
    batches = {"expert": ("together", "prefixes"), "nnsight": ("together",)}
    return calls not in batches.get(rival, ())


_HANDLES: dict[tuple[str, str], Any] = {}


def _handle(module: Any, model: str) -> Any:
    """A library's model, made once; models of another shape are let go first, as they are large."""
    for key in [key for key in _HANDLES if key[1] != model]:
        del _HANDLES[key]
    key = (module.setup.__module__, model)
    if key not in _HANDLES:
        _HANDLES[key] = module.setup(model)
    return _HANDLES[key]


class Apart:
    """A contestant in a process of its own."""

    def __init__(self, setting: Setting, python: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent / "src")))}
        self.process = subprocess.Popen(
            [python, "-m", "sweeping.stand"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.folder = tempfile.TemporaryDirectory()
        self.pid = (self.process.pid,)
        try:
            ready = self._ask({"setting": setting._asdict(), "folder": self.folder.name})
        except Unable:
            self.close()
            raise
        self.first, self.work = ready["first"], {}

    def run(self) -> Run:
        from safetensors.torch import load_file

        found = self._ask({"run": True})
        self.work = found["work"]
        result = load_file(found["result"])["result"]
        return Run(found["seconds"], found["core"], result, found["others"], found["there"])

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        self.folder.cleanup()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Unable(f"its process ended with status {self.process.wait(timeout=60)}")
        answer = json.loads(line)
        if "unable" in answer:
            raise Unable(answer["unable"])
        return answer


def main() -> None:
    """Answer one contestant's questions until the questions end. What libraries print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    stand: Here | None = None
    folder = ""
    for count, line in enumerate(sys.stdin):
        question = json.loads(line)
        try:
            if "setting" in question:
                stand, folder = Here(Setting(**question["setting"])), question["folder"]
                answer: dict[str, Any] = {"first": stand.first}
            else:
                assert stand is not None
                answer = _told(stand, Path(folder) / f"{count}.safetensors")
        except Unable as error:
            answer = {"unable": str(error)}
        except Exception as error:
            answer = {"unable": reason(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _told(stand: Here, path: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    found = stand.run()
    save_file({"result": found.result.contiguous().clone()}, path)
    work = {name: value for name, value in stand.work.items() if isinstance(value, int | float)}
    figures = {"seconds": found.seconds, "core": found.core, "others": found.others, "there": found.there}
    return {**figures, "result": str(path), "work": work}


def reason(error: BaseException) -> str:
    """An error in one line, for the table."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}:{last.lineno})"


if __name__ == "__main__":
    main()
