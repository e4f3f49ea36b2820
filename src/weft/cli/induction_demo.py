"""`weft demo`: a server, a client, and a model in which one head does the work; find it, and check that it is the one.

The model continues a text it has seen. Clean and corrupted texts differ in one word, which the model must repeat. For
each head, its z at the last position in the corrupted run is replaced by the clean run's; how far that brings the
clean answer back is the head's effect: (patched − corrupted)/(clean − corrupted), 0 for none, 1 for all of it.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

import weft
from weft.cli.files import replay_record, write
from weft.cli.heads import patch_every_head
from weft.plot import Heatmap, heatmap

MODEL = "induction"
CLEAN = "The Eiffel Tower is in Paris. The Eiffel Tower is in"
CORRUPT = "The Eiffel Tower is in Rome. The Eiffel Tower is in"
ANSWERS = (" Paris", " Rome")


@dataclass(frozen=True)
class Findings:
    """What the demo found and what it takes to check it."""

    found: tuple[int, int]
    planted: tuple[int, int]
    effect: list[list[float]]
    server: str
    experiment: str
    record: str
    replay_agrees: bool
    replay_difference: float
    edits: dict[str, int]
    work: dict[str, float]
    explain: str
    seconds_experiment: float
    seconds: float
    files: dict[str, str]

    @property
    def right(self) -> bool:
        """Whether the head found is the planted one, and a replay says the same."""
        return self.found == self.planted and self.replay_agrees

    def to_data(self) -> dict[str, Any]:
        return asdict(self) | {"right": self.right, "clean": CLEAN, "corrupted": CORRUPT}


def run_demo(out: Path) -> Findings:
    """Serve the planted model, find the head as a client, replay without the server; figures and record go to `out`."""
    from weft import serve
    from weft.planted.induction import truth

    started = time.perf_counter()
    with serve.background(models=[MODEL]) as url:
        session = patch_every_head(weft.connect(url).model(MODEL), CLEAN, CORRUPT, ANSWERS)
        record, explained = session.record, session.explain()
    figure = draw(session.results["effect"].numpy(), truth().induction)
    out.mkdir(parents=True, exist_ok=True)
    comparison = replay_record(record, MODEL)  # on a model built anew: the server has no part in it
    return Findings(
        found=strongest(figure.array),
        planted=truth().induction,
        effect=figure.array.values.tolist(),
        server=url,
        experiment=record.experiment_hash,
        record=record.hash,
        replay_agrees=comparison.agrees(),
        replay_difference=comparison.largest,
        edits=record.edits._asdict(),
        work=dict(record.work),
        explain=explained,
        seconds_experiment=record.seconds,
        seconds=time.perf_counter() - started,
        files={
            "page": str(figure.html(out / "induction.html")),
            "picture": str(figure.png(out / "induction.png")),
            "record": str(write(record, out / "induction.safetensors")),
        },
    )


def draw(effect: Any, planted: tuple[int, int]) -> Heatmap:
    """The grid as a figure, the planted head framed."""
    array = xr.DataArray(effect, dims=("layer", "head"), name="normalised effect")
    return heatmap(array, title="z patched from clean into corrupted, last position", mark=planted)


def strongest(effect: xr.DataArray) -> tuple[int, int]:
    """Layer and head of the largest effect."""
    layer, head = divmod(int(effect.values.argmax()), effect.shape[1])
    return layer, head


def show_demo(findings: Findings) -> None:
    """Print the findings for people."""
    from rich.console import Console

    console = Console(highlight=False)
    verdict = "the head found is the planted one" if findings.right else "this is NOT as planted"
    agrees = "agrees" if findings.replay_agrees else "does NOT agree"
    console.print(f"\nclean      {CLEAN}[b] Paris[/]\ncorrupted  {CORRUPT}[b] Rome[/]\n")
    console.print(draw(findings.effect, findings.planted).table())
    console.print(
        f"\nfound      {_head(findings.found)}, effect {findings.effect[findings.found[0]][findings.found[1]]:.3f}"
        f"\nplanted    {_head(findings.planted)}: {verdict}"
        f"\nrecord     {findings.record}"
        f"\nreplay     {agrees}, without the server: largest difference {findings.replay_difference:.2g}"
        f"\n\n{findings.explain}\n\n"
        + "\n".join(f"{name:<10} {path}" for name, path in findings.files.items())
        + f"\ntime       {findings.seconds:.1f} s in all, {findings.seconds_experiment:.2f} s the experiment",
        markup=False,
    )


def _head(at: tuple[int, int]) -> str:
    return f"L{at[0]}H{at[1]}"
