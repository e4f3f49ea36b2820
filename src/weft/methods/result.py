"""What every method gives: labelled arrays, how they came about in the field's words, and the records.

found = weft.methods.activation_patching(model, clean, corrupt)
found["effect"]                        # an xarray.DataArray [layer, head]
found.mediator, found.control          # the words of "The Quest for the Right Mediator" (arXiv 2408.01416)
found.plot(); found.to_dataframe()     # a Plotly figure; a pandas table, one row a number
found.save("grid.safetensors"); weft.methods.load("grid.safetensors")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

import weft

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

CLASSES: dict[str, type[Result]] = {}
"""The class of each method's results; `load` makes a plain `Result` of a method that is not there."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A method's finding. `result[name]` is an array of it; arrays are read-only, each axis has its name.

    `mediator` is the unit intervened on, `search` how units were gone through, `intervention` what was done to them,
    `metric` what was read, `control` what the effect is to be held against. `settings` says what else was asked for, as
    JSON; `records` are those of the sessions that ran. `stopped` is "" or says what an interruption left out.
    """

    method: str = ""
    model: str
    mediator: str
    search: str
    intervention: str
    metric: str
    control: str
    seeds: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    stopped: str = ""
    arrays: Mapping[str, xr.DataArray] = field(repr=False)
    records: tuple[weft.Record, ...] = field(default=(), repr=False)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if method := cls.__dict__.get("method"):
            CLASSES[method] = cls

    def __post_init__(self) -> None:
        if not self.arrays:
            raise weft.errors.ProgramError("a result holds at least one array")
        object.__setattr__(self, "arrays", MappingProxyType({n: _fixed(n, a) for n, a in self.arrays.items()}))
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "records", tuple(self.records))

    def __getitem__(self, name: str) -> xr.DataArray:
        if name not in self.arrays:
            raise KeyError(f"this result has no array {name!r}; it has {', '.join(self.arrays)}")
        return self.arrays[name]

    @property
    def main(self) -> str:
        """The array that is plotted and tabled where none is named: the first."""
        return next(iter(self.arrays))

    @property
    def words(self) -> dict[str, str]:
        """How the finding came about: method, model, mediator, search, intervention, metric, control."""
        names = ("method", "model", "mediator", "search", "intervention", "metric", "control")
        return {name: getattr(self, name) for name in names}

    def plot(self, name: str | None = None, **options: Any) -> plotly.graph_objects.Figure:
        """A Plotly figure of an array (the main one): two axes are a heat map, one is a line.

        Of an array with more axes choose along some: `found.plot(position="end")`.
        """
        from weft.plot import heatmap, lines

        array = self[name or self.main]
        array = array.sel({dim: options.pop(str(dim)) for dim in array.dims if dim in options})
        if array.ndim == 1:
            return lines(array, title=self.title(name), **options)
        return heatmap(array, title=self.title(name), **options).plotly()

    def title(self, name: str | None = None) -> str:
        """What stands above a figure of that array."""
        return f"{name or self.main}: {self.intervention} ({self.model})"

    def to_dataframe(self, name: str | None = None) -> pandas.DataFrame:
        """An array (the main one) as a table with a column for each axis and one row for each number."""
        name = name or self.main
        array = self[name]
        missing = {dim: range(array.sizes[dim]) for dim in array.dims if dim not in array.coords}
        return array.assign_coords(missing).to_dataframe(name).reset_index()

    def save(self, path: str | Path) -> Path:
        """Write all of it, records too, as one safetensors file; its path."""
        from weft.methods.files import save

        return save(self, Path(path))

    def __str__(self) -> str:
        lines = [f"{name:<13}{value}" for name, value in self.words.items()]
        shapes = (f"{name} [{_sizes(array)}]" for name, array in self.arrays.items())
        lines.append(f"{'arrays':<13}{', '.join(shapes)}")
        return "\n".join(lines + ([f"{'stopped':<13}{self.stopped}"] if self.stopped else []))


PLAIN = tuple(each.name for each in fields(Result) if each.name not in ("arrays", "records"))
"""The fields that are text and numbers."""


def _sizes(array: xr.DataArray) -> str:
    return ", ".join(f"{dim}: {size}" for dim, size in array.sizes.items())


def _fixed(name: str, array: xr.DataArray) -> xr.DataArray:
    """A copy that nobody writes into by accident, named as it is called in the result."""
    if not isinstance(array, xr.DataArray):
        raise weft.errors.ProgramError(f"{name} is {type(array).__name__}; a result holds xarray.DataArray")
    copy = array.copy(deep=True).rename(name)
    for part in (copy, *copy.coords.values()):
        if isinstance(part.values, np.ndarray) and part.values.flags.owndata:
            part.values.setflags(write=False)
    copy.values.setflags(write=False)
    return copy
