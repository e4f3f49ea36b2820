"""A proposed table: what can be pasted into `register`, and which equations hold with it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from weft.models.family import Family
from weft.models.identities import Held

_PATHS_FIRST = (
    ("embed", "positions", "layers", "final_norm", "unembed"),
    ("norm1", "attn", "qkv", "q", "k", "v", "q_norm", "k_norm", "z", "o", "attn_adds"),
    ("norm2", "mlp", "gate", "gate_up", "mlp_in", "mlp_out", "mlp_adds"),
)


@dataclass(frozen=True)
class Proposal:
    """What `weft.models.inspect` found. `print(proposal)` shows a call of `register` to paste, and the equations.

    `facts` are the columns of the table that are not as they are by default; `identities` say what holds with them, as
    numbers; `notes` say what else was seen.
    """

    kind: str
    n_heads: int | str
    family: Family
    identities: tuple[Held, ...]
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What the table says, as keyword arguments of `register`."""
        every = [each for each in fields(Family) if each.name not in ("name", "model_types", "lacks")]
        return {
            each.name: value
            for each in every
            if (value := getattr(self.family, each.name)) != each.default or each.default is MISSING
        }

    @property
    def holds(self) -> bool:
        """Whether every equation does."""
        return all(each.holds for each in self.identities)

    @property
    def call(self) -> str:
        """The call of `register`, as source."""
        facts = self.facts
        rows = [[name for name in row if name in facts] for row in _PATHS_FIRST]
        rows.append([name for name in facts if not any(name in row for row in _PATHS_FIRST)])
        lines = [", ".join(f"{name}={facts[name]!r}" for name in row).replace("'", '"') for row in rows if row]
        heads = f'"{self.n_heads}"' if isinstance(self.n_heads, str) else self.n_heads
        first = f'"{self.family.name}", {self.kind}, n_heads={heads},'
        return "\n    ".join(["weft.models.register(", first, *(f"{line}," for line in lines)]) + "\n)"

    def __str__(self) -> str:
        held = sum(each.holds for each in self.identities)
        parts = [self.call, f"{held} of {len(self.identities)} equations hold (largest error, of the largest value):"]
        parts += [f"  {each}" for each in self.identities]
        return "\n".join([*parts, *(f"note: {note}" for note in self.notes)])
