"""`weft demo`: a server, a client, and bobbin, a small model that learned its tasks: one experiment, its replay, its atlas.

Examples show a function: "Q: Italy\\nA: Rome" the capital, "Q: Italy\\nA: Italian" the people. Each head's z at the last
token of the second prompt is replaced by the first's; how far that brings the capital is the head's effect:
(patched − corrupted)/(clean − corrupted), 0 for none, 1 for all of it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

import weft
from weft.cli.atlas import show_parts
from weft.cli.files import replay_record, write
from weft.cli.heads import patch_every_head
from weft.plot import Heatmap, heatmap

MODEL = "bobbin"
SHOWN = (("Italy", "Rome", "Italian"), ("Japan", "Tokyo", "Japanese"), ("Greece", "Athens", "Greek"))
ASKED = ("Spain", "Madrid", "Spanish")
PROMPTS = 50
"""Prompts a task in the atlas."""


def prompt(column: int) -> str:
    """Examples of capitals (1) or of peoples (2), and one more country."""
    return "".join(f"Q: {each[0]}\nA: {each[column]}\n\n" for each in SHOWN) + f"Q: {ASKED[0]}\nA:"


def begun(model: Any) -> list[int]:
    """The tokens that the two answers begin with."""
    return [model.tokens.ids(f" {each}")[0] for each in ASKED[1:]]


@dataclass(frozen=True)
class Findings:
    """What the demo found, and what it takes to check it."""

    effect: list[list[float]]
    server: str
    record: str
    replay_agrees: bool
    replay_difference: float
    explain: str
    atlas: dict[str, Any]
    files: dict[str, str]
    seconds_experiment: float
    seconds: float

    @property
    def right(self) -> bool:
        """Whether a replay without the server says the same, and the atlas was made to its end."""
        return self.replay_agrees and not self.atlas["stopped"]

    def to_data(self) -> dict[str, Any]:
        return asdict(self) | {"right": self.right, "clean": prompt(1), "corrupted": prompt(2)}


def run_demo(out: Path) -> Findings:
    """Serve bobbin; as its client patch every head and make its atlas; replay without the server. Files go to `out`."""
    from weft import serve
    from weft.atlas import Settings, atlas

    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    with serve.background(models=[MODEL]) as url:
        model = weft.connect(url).model(MODEL)
        session = patch_every_head(model, prompt(1), prompt(2), begun(model))
        found = atlas(model, out / "atlas", Settings(n=PROMPTS))
    record, figure = session.record, draw(session.results["effect"].numpy())
    comparison = replay_record(record, MODEL)  # on the weights in the package: the server has no part in it
    return Findings(
        effect=figure.array.values.tolist(),
        server=url,
        record=record.hash,
        replay_agrees=comparison.agrees(),
        replay_difference=comparison.largest,
        explain=session.explain(),
        atlas=found.to_data(),
        files={
            "picture": str(figure.png(out / "heads.png")),
            "record": str(write(record, out / "heads.safetensors")),
            "report": str(found.report),
        },
        seconds_experiment=record.seconds,
        seconds=time.perf_counter() - started,
    )


def draw(effect: Any) -> Heatmap:
    """The grid as a figure."""
    array = xr.DataArray(effect, dims=("layer", "head"), name="normalised effect")
    return heatmap(array, title="z patched from capitals into peoples, last position")


def show_demo(findings: Findings) -> None:
    """Print the findings for people."""
    from rich.console import Console

    console = Console(highlight=False)
    agrees = "agrees" if findings.replay_agrees else "does NOT agree"
    console.print(f"clean\n{prompt(1)} {ASKED[1]}\n\ncorrupted\n{prompt(2)} {ASKED[2]}\n", markup=False)
    console.print(draw(findings.effect).table())
    console.print(
        f"\nrecord     {findings.record}\nreplay     {agrees}, without the server: largest difference "
        f"{findings.replay_difference:.2g}\n\n{findings.explain}",
        markup=False,
    )
    show_parts(console, findings.atlas)
    files = "\n".join(f"{name:<10} {path}" for name, path in findings.files.items())
    console.print(f"\n{files}\ntime       {findings.seconds:.0f} s in all", markup=False)
