"""A heat map of a labelled array, drawn three ways from the same numbers.

The picture is drawn by matplotlib and not exported from the Plotly figure, because that export starts a web browser,
which servers, containers and clusters do not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from weft.plot.labels import tick_labels, upright

if TYPE_CHECKING:
    import plotly.graph_objects
    from matplotlib.figure import Figure
    from rich.table import Table

WRITTEN_OUT = 24
"""Up to this many columns each cell of a picture carries its number."""


def heatmap(array: xr.DataArray, *, title: str = "", mark: tuple[int, int] | None = None) -> Heatmap:
    """A heat map of an array with two named axes, e.g. `heatmap(grid, title="…").html("grid.html")`.

    The array's name says what the colour is. `mark=(row, column)` frames one cell.
    """
    return Heatmap(upright(array), title or str(array.name or ""), mark)


@dataclass(frozen=True)
class Heatmap:
    """A heat map: `html(path)`, `png(path)`, `terminal()`, `plotly()`, `matplotlib()`."""

    array: xr.DataArray
    title: str
    mark: tuple[int, int] | None = None

    @property
    def limit(self) -> float:
        """The largest absolute value: the colours run from −limit to limit, so that white is 0."""
        finite = np.abs(self.array.values[np.isfinite(self.array.values)])
        return float(finite.max()) if finite.size and finite.max() > 0 else 1.0

    def plotly(self) -> plotly.graph_objects.Figure:
        """The heat map as a Plotly figure."""
        import plotly.graph_objects as go

        y, x = self.array.dims
        name = str(self.array.name or "value")
        figure = go.Figure(
            go.Heatmap(
                z=self.array.values.tolist(),
                x=tick_labels(self.array, 1),
                y=tick_labels(self.array, 0),
                colorscale="RdBu",
                zmid=0,
                zmin=-self.limit,
                zmax=self.limit,
                colorbar={"title": name},
                hovertemplate=f"{y} %{{y}}, {x} %{{x}}<br>{name} %{{z:.4g}}<extra></extra>",
            )
        )
        axis: dict[str, Any] = {"type": "category"}  # labels that look like numbers are labels
        figure.update_layout(title=self.title, xaxis=axis | {"title": str(x)}, template="plotly_white")
        figure.update_yaxes(**axis, title=str(y), autorange="reversed")
        if self.mark is not None:
            row, column = self.mark
            figure.add_shape(type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5, line_width=3)
        return figure

    def html(self, path: str | Path) -> Path:
        """Write a page that needs nothing else, no network either; its path."""
        self.plotly().write_html(path, include_plotlyjs=True, div_id="heatmap")
        return Path(path)

    def matplotlib(self) -> Figure:
        """The heat map as a matplotlib figure."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle

        rows, columns = self.array.shape
        figure = Figure(figsize=(2.4 + 0.75 * min(columns, 40), 1.6 + 0.55 * min(rows, 40)), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(self.array.values, cmap="RdBu", vmin=-self.limit, vmax=self.limit, aspect="auto")
        axes.set_xticks(range(columns), tick_labels(self.array, 1), rotation=0 if columns <= WRITTEN_OUT else 90)
        axes.set_yticks(range(rows), tick_labels(self.array, 0))
        axes.set(title=self.title, xlabel=str(self.array.dims[1]), ylabel=str(self.array.dims[0]))
        if columns <= WRITTEN_OUT:
            for (row, column), value in np.ndenumerate(self.array.values):
                colour = "white" if abs(value) > 0.6 * self.limit else "black"
                axes.text(column, row, number(float(value)), ha="center", va="center", color=colour, fontsize=9)
        if self.mark is not None:
            row, column = self.mark
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, linewidth=2))
        figure.colorbar(image, ax=axes, label=str(self.array.name or "value"))
        return figure

    def png(self, path: str | Path, *, dpi: int = 150) -> Path:
        """Write a picture; its path."""
        self.matplotlib().savefig(path, dpi=dpi)
        return Path(path)

    def table(self) -> Table:
        """The heat map as a coloured table for the terminal."""
        from rich.table import Table
        from rich.text import Text

        y, x = self.array.dims
        table = Table(title=self.title or None, caption=f"{y} × {x}; blue is positive, red negative", box=None)
        table.add_column(f"{y} \\ {x}", justify="right", style="bold")
        for label in tick_labels(self.array, 1):
            table.add_column(label, justify="right")
        for row, label in enumerate(tick_labels(self.array, 0)):
            cells = [Text(f" {number(float(v))} ", style=_style(float(v) / self.limit)) for v in self.array.values[row]]
            table.add_row(label, *cells)
        return table

    def terminal(self) -> None:
        """Print the heat map in the terminal."""
        from rich.console import Console

        Console().print(self.table())

    def _repr_html_(self) -> str:
        return self.plotly().to_html(full_html=False, include_plotlyjs="cdn")


def number(value: float) -> str:
    """A number as short as tells it from its neighbours: `0.98`, `-0.00` as `0.00`, `-12.3`."""
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return text.lstrip("-") if float(text) == 0 else text


def _style(fraction: float) -> str:
    """Rich's style for a cell: white to blue for 0 to 1, white to red for 0 to −1."""
    if not math.isfinite(fraction):
        return ""
    end = (33, 102, 172) if fraction > 0 else (178, 24, 43)
    strength = min(abs(fraction), 1.0)
    red, green, blue = (round(255 + (part - 255) * strength) for part in end)
    return f"{'white' if strength > 0.6 else 'black'} on #{red:02x}{green:02x}{blue:02x}"
