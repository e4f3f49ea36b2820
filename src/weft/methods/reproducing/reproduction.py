"""The result of `weft.methods.reproduce`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.methods.reproducing.missing import told
from weft.methods.reproducing.rows import Row, as_data
from weft.methods.result import Result


@dataclass(frozen=True, kw_only=True)
class Reproduction(Result):
    """What `reproduce` gives. `rows`: each figure of the paper with its mark, ours, the interval, a verdict and its reason.

    "figures" [figure, value] has expected, ours, low and high as numbers; other arrays are what the parts come to, such as
    "mean_accuracy". `parts`: the methods' own results by part. `missing`: empty, or what the paper's numbers need.
    `differs`: what weft does otherwise than the paper. `notes`: what in this run was not as asked. `failed`: part → why it
    could not be had.
    """

    method: str = "reproduce"
    paper: str
    rows: tuple[Row, ...]
    missing: Mapping[str, Any] = field(default_factory=dict[str, Any])
    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    parts: Mapping[str, Result] = field(default_factory=dict[str, Result], repr=False, metadata={"saved": False})

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "rows", tuple(Row(*row) for row in self.rows))
        object.__setattr__(self, "differs", tuple(self.differs))
        object.__setattr__(self, "notes", tuple(self.notes))

    @property
    def right(self) -> bool:
        """Whether it ran whole, and nothing that can be compared differs from the paper."""
        verdicts = {row.verdict for row in self.rows}
        return (
            not (self.missing or self.failed or self.stopped)
            and verdicts != {"not measured"}
            and "differs" not in verdicts
        )

    def to_data(self) -> dict[str, Any]:
        """All but the arrays, as JSON has it."""
        return {
            "paper": self.paper, "model": self.model, "rows": as_data(self.rows), "settings": dict(self.settings),
            "missing": dict(self.missing), "differs": list(self.differs), "notes": list(self.notes),
            "failed": dict(self.failed), "stopped": self.stopped, "seeds": list(self.seeds), "right": self.right,
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [f"{self.paper} on {self.model or 'no model'}"]
        for row in self.rows:
            ours = "" if row.ours is None else f"ours {row.ours:.4g}; "
            why = f" ({row.reason})" if row.reason else ""
            lines.append(f"{row.what}: {row.expected} [{row.mark}]; {ours}{row.verdict}{why}")
        return "\n".join([*lines, told(dict(self.missing))] if self.missing else lines)
