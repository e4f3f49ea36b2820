"""Families of models by name and by `model_type`, and the standard sites that their tables place.

The tables themselves are in `tables`; what a row may say is in `family`.
"""

from __future__ import annotations

from weft.models.family import Family, resolved
from weft.models.tables import ROWS

__all__ = [
    "BY_MODEL_TYPE",
    "FAMILIES",
    "INSIDE_ATTENTION",
    "LAYERED",
    "STANDARD_SITES",
    "Family",
    "canonical",
    "resolved",
]

STANDARD_SITES = (
    "embed", "q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out", "attn_out",
    "resid_mid", "mlp_pre", "mlp_post", "router_logits", "expert_weights", "expert_out", "mlp_out", "resid_post",
    "final_norm", "logits",
)  # fmt: skip
"""The standard sites in the order in which a decoder computes them (those of a layer for each layer)."""

LAYERED = frozenset(STANDARD_SITES) - {"embed", "final_norm", "logits"}
INSIDE_ATTENTION = ("q_rot", "k_rot", "scores", "pattern")
"""Sites that exist only while weft's own attention function runs, in its order."""

FAMILIES: dict[str, Family] = {family.name: family for family in ROWS}
BY_MODEL_TYPE: dict[str, Family] = {kind: family for family in ROWS for kind in family.model_types}


def canonical(site_name: str, n_layers: int) -> tuple[int | None, ...]:
    """The layers at which a standard site exists: `(None,)` for those of the whole model."""
    return tuple(range(n_layers)) if site_name in LAYERED else (None,)
