"""`weft atlas MODEL`: what a model can do, which mechanisms do it, and what was left out, as one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def run_atlas(source: str, url: str, out: Path | None, n: int, seed: int, as_json: bool) -> bool:
    """Make it, or go on with it; print what was found. False if it was stopped before its end."""
    import weft
    from weft import planted
    from weft.atlas import Settings, atlas

    planted.register()
    model = weft.connect(url).model(source) if url else weft.load(source)
    folder = out or Path(f"{model.card.name.replace('/', '-')}-atlas")
    found = atlas(model, folder, Settings(n=n, seed=seed))
    if as_json:
        print(json.dumps(found.to_data(), indent=2, ensure_ascii=False))
    else:
        show_atlas(found)
    return not found.stopped


def show_atlas(found: Any) -> None:
    """Print for people what was found, and where the report is."""
    from rich.console import Console

    console, data = Console(highlight=False), found.to_data()
    show_parts(console, data)
    console.print(f"\nreport     {data['report']}\ntime       {data['seconds']:.0f} s", markup=False)


def show_parts(console: Any, data: dict[str, Any]) -> None:
    """What each part says, and why others say nothing."""
    for part in data["found"].values():
        console.print(f"\n[b]{part['title']}[/]")
        for line in part["says"]:
            console.print(f"  {line}", markup=False)
    if data["skipped"]:
        console.print("\n[b]Left out[/]")
    for name, why in data["skipped"].items():
        console.print(f"  {name}: {why}", markup=False)
    if data["stopped"]:
        console.print(f"\nstopped {data['stopped']}; the same command goes on there", markup=False)
