"""One labelled array, three figures: the same numbers, centred on 0, layers on y."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from weft.plot import heatmap, token_labels

GRID = xr.DataArray([[0.5, -1.0, 0.0], [0.25, 0.0, 0.75]], dims=("layer", "head"), name="effect")


def test_the_figure_is_rdbu_centred_on_zero_with_layer_0_on_top() -> None:
    figure = heatmap(GRID).plotly()
    (trace,) = figure.data
    assert (trace.zmin, trace.zmid, trace.zmax) == (-1.0, 0, 1.0)
    assert trace.colorscale[0][1] == "rgb(103,0,31)"  # RdBu begins with red, for what is negative
    assert np.array_equal(np.array(trace.z), GRID.values)
    assert (figure.layout.yaxis.title.text, figure.layout.yaxis.autorange) == ("layer", "reversed")


def test_layers_go_on_y_whichever_way_round_the_array_comes() -> None:
    assert heatmap(GRID.transpose("head", "layer")).array.dims == ("layer", "head")


def test_picture_and_page_are_written_without_a_browser(tmp_path: Path) -> None:
    figure = heatmap(GRID, title="t", mark=(1, 2))
    assert figure.png(tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    page = figure.html(tmp_path / "grid.html").read_text()
    assert 'id="heatmap"' in page and "cdn.plot.ly" not in page.split("plotly.js v")[0]


def test_the_terminal_shows_every_number() -> None:
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(heatmap(GRID, title="Heads").table())
    words = console.export_text().split()
    assert [word for word in words if "." in word] == ["0.50", "-1.00", "0.00", "0.25", "0.00", "0.75"]


def test_tokens_stay_apart_on_an_axis() -> None:
    labels = token_labels([" the", " cat", " the"])
    assert labels == [" the_0", " cat_1", " the_2"]
    array = xr.DataArray(np.zeros((2, 3)), dims=("layer", "pos"), coords={"pos": labels})
    assert list(heatmap(array).plotly().data[0].x) == labels


def test_labels_that_repeat_are_refused_with_the_way_out() -> None:
    array = xr.DataArray(np.zeros((1, 2)), dims=("layer", "pos"), coords={"pos": [" a", " a"]})
    with pytest.raises(ValueError, match=r"labels repeat along 'pos'.*token_labels\(tokens\)"):
        heatmap(array).plotly()


def test_an_array_of_three_axes_is_refused_with_the_way_out() -> None:
    array = xr.DataArray(np.zeros((1, 2, 3)), dims=("batch", "layer", "head"))
    with pytest.raises(ValueError, match=r"two axes, not of 3 \(batch: 1, layer: 2, head: 3\).*isel\(batch=0\)"):
        heatmap(array)


def test_an_array_of_nothing_but_nan_is_drawn() -> None:
    assert heatmap(GRID * np.nan).limit == 1.0
    heatmap(GRID * np.nan).matplotlib()
