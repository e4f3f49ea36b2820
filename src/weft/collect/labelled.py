"""A collected site as an xarray.DataArray whose numbers are read from disk only where somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray
from xarray.backends import BackendArray
from xarray.core import indexing

from weft.errors import NotFoundError
from weft.trace.location import where

if TYPE_CHECKING:
    from weft.collect.read import Collection


class _OnDisk(BackendArray):
    """Rows of one site, or of its layers stacked; xarray asks for parts of it."""

    def __init__(self, collection: Collection, sites: list[str], stacked: bool) -> None:
        spec = collection.about["sites"][sites[0]]
        self.collection, self.sites, self.stacked = collection, sites, stacked
        one = (collection.rows, *spec["shape"])
        self.shape = (len(sites), *one) if stacked else one
        self.dtype = np.dtype("float32" if spec["dtype"] == "bfloat16" else spec["dtype"])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        basic = indexing.IndexingSupport.BASIC
        return indexing.explicit_indexing_adapter(key, self.shape, basic, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        if not self.stacked:
            return self._rows(self.sites[0], key)
        if isinstance(key[0], int | np.integer):
            return self._rows(self.sites[int(key[0])], key[1:])
        return np.stack([self._rows(site, key[1:]) for site in self.sites[key[0]]])

    def _rows(self, site: str, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        rows, rest = key[0], key[1:]
        if isinstance(rows, int | np.integer):
            return _numbers(self.collection.read(site, int(rows), int(rows) + 1))[(0, *rest)]
        chosen = range(self.collection.rows)[rows]
        if not len(chosen):
            return _numbers(self.collection.read(site, 0, 0))[(slice(None), *rest)]
        begin = min(chosen[0], chosen[-1])
        found = _numbers(self.collection.read(site, begin, max(chosen[0], chosen[-1]) + 1))
        return found[(slice(None, None, rows.step), *rest)]


def labelled(collection: Collection, site: str) -> xarray.DataArray:
    """The site's rows with prompt, position and token; a layered name alone ("resid_post") gives all of its layers."""
    sites = collection.about["sites"]
    if site in sites:
        return _array(collection, site, [site], {})
    layers = {
        int(name[len(site) + 1 : -1]): name for name in sites if name.startswith(f"{site}[") and name.endswith("]")
    }
    if not layers:
        raise NotFoundError(f"{site} was not collected; there are {', '.join(sites)}", where=where())
    return _array(collection, site, [layers[layer] for layer in sorted(layers)], {"layer": sorted(layers)})


def _array(collection: Collection, name: str, sites: list[str], layers: dict[str, Any]) -> xarray.DataArray:
    data = indexing.LazilyIndexedArray(_OnDisk(collection, sites, bool(layers)))
    axes = (*layers, "row", *collection.about["sites"][sites[0]]["axes"])
    labels = {
        "prompt": ("row", collection.prompt_of.numpy()),
        "position": ("row", collection.position_of.numpy()),
        "token": ("row", collection.token_of.numpy()),
    }
    return xarray.DataArray(xarray.Variable(axes, data), coords=labels | layers, name=name)


def _numbers(found: torch.Tensor) -> np.ndarray[Any, Any]:
    return (found.float() if found.dtype == torch.bfloat16 else found).numpy()
