"""What stands at the rows and columns of a figure."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

ON_Y = ("layer", "step", "query_pos")
"""Axes that stand on y whichever way round the array comes."""


def token_labels(tokens: Sequence[str]) -> list[str]:
    """`[" the", " cat", " the"]` → `[" the_0", " cat_1", " the_2"]`: tokens that repeat stay apart on an axis."""
    return [f"{token}_{position}" for position, token in enumerate(tokens)]


def upright(array: xr.DataArray) -> xr.DataArray:
    """A two-dimensional array with what belongs on y first, and a label for every row and column."""
    if array.ndim != 2:
        shape = ", ".join(f"{dim}: {size}" for dim, size in array.sizes.items())
        raise ValueError(
            f"a heat map needs an array of two axes, not of {array.ndim} ({shape}); choose or average first, "
            f"e.g. array.isel({next(iter(array.dims), 'dim')}=0)"
        )
    first, second = array.dims
    if second in ON_Y and first not in ON_Y:
        array = array.transpose(second, first)
    missing = {dim: range(array.sizes[dim]) for dim in array.dims if dim not in array.coords}
    return array.assign_coords(missing)


def tick_labels(array: xr.DataArray, axis: int) -> list[str]:
    """The labels along one axis; they must differ, or a figure would lay two rows over one another."""
    dim = array.dims[axis]
    labels = [str(label) for label in array.coords[dim].values.tolist()]
    if len(set(labels)) < len(labels):
        raise ValueError(
            f"labels repeat along {dim!r}: {labels}; for tokens write "
            f"coords={{{dim!r}: weft.plot.token_labels(tokens)}}"
        )
    return labels
