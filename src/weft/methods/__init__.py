"""The methods of the field, one file a method, written with the public `weft` alone.

found = weft.methods.activation_patching(model, clean, corrupt, metric)
found["effect"], found.plot(), found.to_dataframe(), found.save("grid.safetensors")
weft.methods.load("grid.safetensors")
"""

from __future__ import annotations

from weft.methods.files import load
from weft.methods.result import Result

__all__ = ["Result", "load"]
