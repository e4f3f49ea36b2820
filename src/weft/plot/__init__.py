"""Labelled arrays as figures: in the terminal, as a page, as a picture.

    grid = xarray.DataArray(effect, dims=("layer", "head"), name="effect")
    figure = weft.plot.heatmap(grid, title="Patching z at the last position")
    figure.html("grid.html"); figure.png("grid.png"); figure.terminal()
    figure.plotly()                        # a Plotly figure, to go on with

Blue is positive, red negative, white zero. Layers go on y, heads or positions on x.
"""

from __future__ import annotations

from weft.plot.bars import bars
from weft.plot.heatmap import Heatmap, heatmap
from weft.plot.labels import token_labels
from weft.plot.lines import lines

__all__ = ["Heatmap", "bars", "heatmap", "lines", "token_labels"]
