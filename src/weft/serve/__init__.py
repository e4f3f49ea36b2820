"""The server: HTTP in, jobs kept, workers run. No torch in this process.

from weft import serve

serve.run(["bobbin"])
with serve.background(models=["bobbin"]) as url: ...
"""

from __future__ import annotations

from weft.serve.launch import background, run
from weft.serve.settings import ModelSpec, Settings

__all__ = ["ModelSpec", "Settings", "background", "run"]
