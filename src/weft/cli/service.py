"""`weft serve` and `weft models`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def serve_models(models: Sequence[str], *, host: str, port: int, folder: Path | None) -> None:
    """Serve `models` ("gpt2", "./folder", "NAME=SOURCE") until interrupted."""
    from weft import serve

    specs = [serve.ModelSpec(name, source) for name, _, source in (model.partition("=") for model in models)]
    names = ", ".join(spec.name for spec in specs)

    def announce(url: str) -> None:
        print(f"serving {names} at {url} (interrupt to end)", flush=True)

    serve.run(specs, host=host, port=port, folder=folder, announce=announce)


def list_models(url: str, as_json: bool) -> None:
    """Print what the server at `url` holds, and whether each is ready."""
    from weft.client import connect

    found = connect(url).models()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for model in found:
        error = f"  {model['error']['message']}" if model.get("error") else ""
        print(f"{model['name']:<24}  {model['state']}{error}")
