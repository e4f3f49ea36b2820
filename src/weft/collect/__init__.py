"""Activations of any number of prompts on disk: `model.collect` writes them, `Collection` reads them.

found = model.collect(Path("prompts.txt"), ["resid_post[3]", "mlp_out"], at=-1, to="activations", dtype="float16")
found["resid_post[3]"]                       # an xarray.DataArray [row, d_model], read from disk where it is looked at
for batch in found.dataset("resid_post[3]", batch_size=4096): ...
"""

from __future__ import annotations

from weft.collect.read import Collection
from weft.collect.run import collect

__all__ = ["Collection", "collect"]
