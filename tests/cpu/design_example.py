"""The example of the design's second section, word for word apart from the model, the layers and the head.

python design_example.py URL MODEL FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import weft


def run(model: Any) -> tuple[dict[str, torch.Tensor], str]:
    """The results, and the hash of the program."""
    probe = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    vector, other = probe * 0.1, torch.ones(1, 9, model.d_model)
    with model.session() as s:  # nothing runs until the block ends
        clean = s.run("The Eiffel Tower is in the city of")
        corrupt = s.run("The Colosseum is in the city of")
        patched = corrupt.fork()
        patched.z[1][:, -1, 2] = clean.z[1][:, -1, 2]
        h = torch.relu(patched.resid_post[1] @ probe)
        diff = weft.logit_diff(patched.logits[:, -1], " Paris", " Rome").save("diff")
        h.save("h")
    assert isinstance(diff.value, torch.Tensor) and torch.equal(diff.value, s.results["diff"])
    assert f"{float(diff):.2f}" and "asked" in s.explain()
    found, hashes = dict(s.results), [s.record.experiment_hash]
    with model.trace("The Eiffel Tower is in the city of") as run:
        run.resid_post[0][:, -1] += vector
        run.resid_post[1] = other
        out = run.logits.save()
        all_z = run.z[:].save("all z")
    found |= {"out": out.value, "all z": all_z.value}
    return found, " ".join([*hashes, run.session.record.experiment_hash])


if __name__ == "__main__":
    results, hashes = run(weft.connect(sys.argv[1]).model(sys.argv[2]))
    save_file({name: value.contiguous() for name, value in results.items()}, f"{sys.argv[3]}/design.safetensors")
    (Path(sys.argv[3]) / "design.json").write_text(json.dumps(hashes))
