"""What the figures were made on, and whether anything else was running meanwhile."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PACKAGES = ("torch", "transformers", "nnsight", "transformer-lens", "pyvene", "numpy")


def describe(threads: int, peers: str = "") -> dict[str, object]:
    """The machine and the versions, as they go into the table; `peers` is the Python of another environment."""
    cpu = [line for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")]
    memory = [line for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")]
    return {
        "cpu": cpu[0].split(":", 1)[1].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory": f"{int(memory[0].split()[1]) / 2**20:.0f} GiB" if memory else "unknown",
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "versions": {**_elsewhere(peers), **versions()},
    }


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _elsewhere(python: str) -> dict[str, str]:
    if not python:
        return {}
    code = "import json; from sweeping import machine; print(json.dumps(machine.versions()))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, check=True).stdout
    return json.loads(found)


@dataclass(frozen=True)
class Moment:
    """Seconds on the clock, busy on all cores, and of them our own."""

    clock: float
    busy: float
    own: float


def now(processes: tuple[int, ...] = ()) -> Moment:
    """The present, where `processes` are ours besides this one."""
    own = sum(_own(pid) for pid in (os.getpid(), *processes))
    return Moment(time.perf_counter(), _busy(), own)


def others(since: Moment, until: Moment) -> tuple[float, float]:
    """Core-seconds that other processes took between two moments, and those there were."""
    taken = (until.busy - since.busy) - (until.own - since.own)
    return max(taken, 0.0), (until.clock - since.clock) * (os.cpu_count() or 1)


def _busy() -> float:
    """Core-seconds spent since boot on anything but waiting (steal is other machines' and counts)."""
    first = _read("/proc/stat").split("\n", 1)[0].split()
    if not first or first[0] != "cpu":
        return 0.0
    ticks = [int(each) for each in first[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICK


def _own(pid: int) -> float:
    text = _read(f"/proc/{pid}/stat")
    if not text:
        return 0.0
    fields = text.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
