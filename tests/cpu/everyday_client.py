"""A client in a process of its own: every everyday experiment on a server's model, results and hashes into a folder.

python everyday_client.py URL MODEL FOLDER
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import weft
from weft.ir.hash import content_hash
from weft.trace import Model

EXAMPLES = Path(__file__).parents[2] / "examples" / "everyday"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


class Noting:
    """A backend that notes the content hash of every experiment it is given."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.hashes: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def fit(self, experiment: Any, **options: Any) -> Any:
        self.hashes.append(content_hash(experiment))
        return self.backend.fit(experiment, **options)

    def run(self, experiment: Any, **options: Any) -> Any:
        self.hashes.append(content_hash(experiment))
        return self.backend.run(experiment, **options)

    def begin(self, experiment: Any) -> Any:
        self.hashes.append(content_hash(experiment))
        return self.backend.begin(experiment)


def example(name: str) -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(f"everyday_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, model: Model) -> tuple[dict[str, Any], list[str]]:
    """An example's results, and the hashes of the experiments it ran."""
    noting = Noting(model.backend)
    return example(name).run(Model(noting)), noting.hashes


def main(url: str, name: str, folder: Path) -> None:
    model = weft.connect(url).model(name)
    hashes = {}
    for each in NAMES:
        results, hashes[each] = run(each, model)
        save_file({key: value.contiguous() for key, value in results.items()}, folder / f"{each}.safetensors")
    job = example("submit_and_fetch").run(weft.connect(url).model(name), wait=False)
    (folder / "found.json").write_text(json.dumps({"hashes": hashes, "job": job}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
