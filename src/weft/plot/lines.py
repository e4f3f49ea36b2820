"""A labelled array as lines, with a band where an interval is known: `lines(curve, low=low, high=high)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    import plotly.graph_objects

COLOURS = ("#2166ac", "#b2182b", "#4d4d4d", "#1b7837", "#762a83", "#e08214")


def lines(
    array: xr.DataArray,
    *,
    low: xr.DataArray | None = None,
    high: xr.DataArray | None = None,
    levels: dict[str, float] | None = None,
    title: str = "",
) -> plotly.graph_objects.Figure:
    """A Plotly figure of an array of one axis (a line), or of two (a line for each entry of the first).

    `low` and `high`, of the same axes, are drawn as a band; `levels` are dashed lines with their names.
    """
    import plotly.graph_objects as go

    if array.ndim not in (1, 2):
        raise ValueError(f"lines are of one axis or two, not of {array.ndim}: {dict(array.sizes)}")
    figure, x = go.Figure(), str(array.dims[-1])
    for number, each in enumerate(_each(array)):
        colour, label = COLOURS[number % len(COLOURS)], _label(array, number)
        along = each.coords[x].values.tolist() if x in each.coords else list(range(each.size))
        if low is not None and high is not None:
            figure.add_trace(_band(go, along, _each(low)[number], _each(high)[number], colour))
        line: dict[str, Any] = {"color": colour}
        figure.add_scatter(x=along, y=each.values.tolist(), name=label, line=line, mode="lines+markers")
    for name, value in (levels or {}).items():
        figure.add_hline(y=value, line_dash="dash", line_color="#888888", annotation_text=name)
    figure.update_layout(title=title, template="plotly_white", showlegend=array.ndim == 2)
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=str(array.name or "value"))
    return figure


def _each(array: xr.DataArray) -> list[xr.DataArray]:
    return [array] if array.ndim == 1 else [array[i] for i in range(array.shape[0])]


def _label(array: xr.DataArray, number: int) -> str:
    first = array.dims[0]
    if array.ndim == 1:
        return str(array.name or "value")
    return str(array.coords[first].values[number]) if first in array.coords else f"{first} {number}"


def _band(go: Any, along: list[Any], low: xr.DataArray, high: xr.DataArray, colour: str) -> Any:
    around = [*along, *reversed(along)]
    edge = [*high.values.tolist(), *reversed(low.values.tolist())]
    fill = f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.15)"
    return go.Scatter(x=around, y=edge, fill="toself", fillcolor=fill, line_width=0, hoverinfo="skip", showlegend=False)
