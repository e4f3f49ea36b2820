"""The model's own forward, with no edit: what (f) is measured against."""

from __future__ import annotations

import torch

from sweeping.models import shared
from sweeping.tasks import Data

LIBRARY = "torch"
CANNOT: dict[str, str] = {}
setup = shared


@torch.no_grad()
def one_edit(model, data: Data) -> torch.Tensor:
    return model(torch.tensor(data.clean)).logits[:, -1]
