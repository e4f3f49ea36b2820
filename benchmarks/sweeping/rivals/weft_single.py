"""weft, with one session for each prompt: what submitting them together saves."""

from __future__ import annotations

from dataclasses import replace

import torch

from sweeping.rivals import weft_session
from sweeping.rivals.weft_session import setup
from sweeping.tasks import Data

LIBRARY = "weft"
CANNOT: dict[str, str] = {}
__all__ = ["CANNOT", "LIBRARY", "setup", "together"]


def together(model, data: Data) -> torch.Tensor:
    return torch.cat([weft_session.together(model, replace(data, patches=[patch])) for patch in data.patches])
