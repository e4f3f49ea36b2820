"""The tables of facts, a file for each kinship; `ROWS` is all of them."""

from __future__ import annotations

from weft.models.family import Family
from weft.models.tables import experts, gemma, gpt, llama, neox, parallel, postnorm

ROWS: tuple[Family, ...] = (
    *gpt.ROWS,
    *llama.ROWS,
    *postnorm.ROWS,
    *gemma.ROWS,
    *neox.ROWS,
    *parallel.ROWS,
    *experts.ROWS,
)
