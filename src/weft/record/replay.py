"""Run a record again and see whether it says the same.

comparison = replay(record, weft.models.load("gpt2"))
print(comparison)                 # the largest difference of each value; whether the model is the same one
comparison.agrees(1e-5)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from weft.errors import ModelError
from weft.ir.nodes import ConstantData
from weft.record.build import record_of
from weft.record.format import Record, decode_record

if TYPE_CHECKING:
    import numpy as np


class Difference(NamedTuple):
    """One value, then and now: the largest difference, and the largest magnitude then (both over all entries)."""

    name: str
    type: str
    largest: float
    scale: float

    @property
    def relative(self) -> float:
        return self.largest / self.scale if self.scale else self.largest


@dataclass(frozen=True)
class Comparison:
    """What a replay gave beside its record. `model` and `setting` list the facts that differ: name, then, now."""

    record: str
    replayed: str
    differences: tuple[Difference, ...]
    model: tuple[tuple[str, str, str], ...] = ()
    setting: tuple[tuple[str, str, str], ...] = ()

    @property
    def same_model(self) -> bool:
        return not self.model

    @property
    def largest(self) -> float:
        return max((each.largest for each in self.differences), default=0.0)

    def agrees(self, tolerance: float = 1e-5) -> bool:
        """Whether the model is the same and every value is within `tolerance` of its largest magnitude (or of 1)."""
        return self.same_model and all(each.largest <= tolerance * max(1.0, each.scale) for each in self.differences)

    def to_data(self) -> dict[str, Any]:
        return {
            "record": self.record,
            "replayed": self.replayed,
            "same_model": self.same_model,
            "largest": self.largest,
            "values": [{**each._asdict(), "relative": each.relative} for each in self.differences],
            "model": list(self.model),
            "setting": list(self.setting),
        }

    def __str__(self) -> str:
        lines = [f"record  {self.record}", f"replay  {self.replayed}"]
        lines += [f"model   {name} was {then}, is {now}" for name, then, now in self.model] or ["model   the same"]
        lines += [f"setting {name} was {then}, is {now}" for name, then, now in self.setting]
        width = max((len(each.name) for each in self.differences), default=0)
        lines += [
            f"value   {each.name:<{width}} {each.type} differs by {each.largest:.3g} ({each.relative:.3g} of largest)"
            for each in self.differences
        ]
        return "\n".join(lines)


def replay(record: Record, loaded: Any, plan: str | None = None) -> Comparison:
    """Run the record's experiment on `loaded` (a weft.models.Loaded) and compare every value."""
    from weft.execute import run

    outcome = run(loaded, record.experiment, plan=plan or record.plan)
    return compare(record, record_of(loaded, record.experiment, outcome))


def replay_file(path: str | Path, loaded: Any, plan: str | None = None) -> Comparison:
    """As `replay`, for a record's file."""
    return replay(decode_record(Path(path).read_bytes()), loaded, plan)


def compare(then: Record, now: Record) -> Comparison:
    """Two records of one experiment, value by value."""
    if then.experiment_hash != now.experiment_hash:
        raise ModelError(
            f"these are records of two experiments, {then.experiment_hash[:12]} and {now.experiment_hash[:12]}; "
            "only records of the same experiment can be compared"
        )
    rows = tuple(_difference(name, value, now.results[name]) for name, value in then.results.items())
    setting = _changes({**then.versions, "device": then.device, "dtype": then.dtype, "plan": then.plan},
                       {**now.versions, "device": now.device, "dtype": now.dtype, "plan": now.plan})  # fmt: skip
    return Comparison(then.hash, now.hash, rows, _changes(then.fingerprint, now.fingerprint), setting)


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    names = sorted({*then, *now})
    return tuple((name, str(then.get(name)), str(now.get(name))) for name in names if then.get(name) != now.get(name))


def _difference(name: str, then: ConstantData, now: ConstantData) -> Difference:
    if then.type != now.type:
        return Difference(name, f"{then.type} → {now.type}", math.inf, 0.0)
    return Difference(name, str(then.type), *_largest(_array(then), _array(now)))


def _largest(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Largest |a - b|, largest finite |a|. Equal infinities and two NaNs differ by nothing; a lone one by infinity."""
    import numpy as np

    if a.size == 0:
        return 0.0, 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    gap = np.where(np.isnan(gap), np.inf, gap)
    return float(gap.max()), float(np.abs(np.where(np.isfinite(a), a, 0.0)).max())


def _array(value: ConstantData) -> np.ndarray[Any, Any]:
    import numpy as np

    from weft.record.tensors import Value

    return np.asarray(Value(value.type, value.tobytes())).astype(np.float64)
