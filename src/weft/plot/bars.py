"""Numbers by name as bars with their intervals: `bars(value, low=low, high=high)`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from weft.plot.lines import COLOURS

if TYPE_CHECKING:
    import plotly.graph_objects


def bars(
    array: xr.DataArray, *, low: xr.DataArray | None = None, high: xr.DataArray | None = None, title: str = ""
) -> plotly.graph_objects.Figure:
    """A Plotly figure of an array of one axis, a bar for each of its labels.

    `low` and `high`, along the same axis, are drawn as the ends of an interval around the bar's own end.
    """
    import plotly.graph_objects as go

    if array.ndim != 1:
        raise ValueError(f"bars are of one axis, not of {array.ndim}: {dict(array.sizes)}")
    x, values = str(array.dims[0]), array.values
    labels = (
        [str(each) for each in array.coords[x].values] if x in array.coords else [str(i) for i in range(array.size)]
    )
    interval: dict[str, Any] | None = None
    if low is not None and high is not None:
        interval = {"array": (high.values - values).tolist(), "arrayminus": (values - low.values).tolist()}
    figure = go.Figure(go.Bar(x=labels, y=values.tolist(), marker_color=COLOURS[0], error_y=interval))
    figure.update_layout(title=title, template="plotly_white")
    figure.update_xaxes(title=x, type="category")
    figure.update_yaxes(title=str(array.name or "value"))
    return figure
