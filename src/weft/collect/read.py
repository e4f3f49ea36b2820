"""A collection, read from its folder: nothing is loaded but what is looked at.

found = weft.Collection("activations")
found["resid_post[3]"]                 xarray.DataArray [row, d_model], with each row's prompt, position and token
found["resid_post"]                    all layers of it: [layer, row, d_model]
found.prompt(17)                       one prompt's activations by site: {"resid_post[3]": [rows, d_model]}
found.dataset("resid_post[3]", …)      batches for training, shuffled across the shards
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weft.collect.folder import Folder, read_folder
from weft.errors import NotFoundError
from weft.trace.location import where

if TYPE_CHECKING:
    import xarray

    from weft.collect.dataset import Rows


class Collection:
    """Activations on disk: `rows` of them, of `prompts` prompts, at `sites`. `complete` is False while shards are missing."""

    def __init__(self, folder: str | Path) -> None:
        self._folder: Folder = read_folder(Path(folder))
        self._starts = [0, *accumulate(each["rows"] for each in self._folder.entries)]
        self._files: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # a data loader's worker opens the files itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])

    # -- what it holds ---

    @property
    def folder(self) -> Path:
        return self._folder.path

    @property
    def about(self) -> dict[str, Any]:
        """The model, its fingerprint, and what was asked for."""
        return self._folder.about

    @property
    def sites(self) -> list[str]:
        return list(self.about["sites"])

    @property
    def complete(self) -> bool:
        return self._folder.complete

    @property
    def rows(self) -> int:
        """How many activations there are of each site."""
        return self._starts[-1]

    @property
    def prompts(self) -> int:
        """How many prompts they come from."""
        return sum(each["prompts"] for each in self._folder.entries)

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        state = "" if self.complete else ", not complete"
        sites = ", ".join(self.sites[:4]) + (", …" if len(self.sites) > 4 else "")
        return f"<collection {self.folder}: {self.rows:,} rows of {self.prompts:,} prompts, {sites}{state}>"

    # -- labels: which prompt, position and token each row is of ---

    @cached_property
    def prompt_of(self) -> torch.Tensor:
        """Each row's prompt, by its number in what was given to collect: int64 [row]."""
        found = [
            torch.repeat_interleave(self._whole(at, "prompt"), self._whole(at, "length"))
            for at in range(len(self._folder.entries))
        ]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)

    @cached_property
    def position_of(self) -> torch.Tensor:
        """Each row's position in its prompt: int64 [row]."""
        return self._label("position")

    @cached_property
    def token_of(self) -> torch.Tensor:
        """Each row's token: int64 [row]."""
        return self._label("token")

    # -- activations ---

    def read(self, site: str, begin: int = 0, end: int | None = None) -> torch.Tensor:
        """Rows [begin, end) of a site as a tensor, in the dtype they are stored in."""
        self._check(site)
        end = self.rows if end is None else min(end, self.rows)
        parts: list[torch.Tensor] = []
        at = bisect_right(self._starts, begin) - 1
        while begin < end:
            start, stop = self._starts[at], self._starts[at + 1]
            parts.append(self._file(at).get_slice(site)[begin - start : min(end, stop) - start])
            begin, at = min(end, stop), at + 1
        spec = self.about["sites"][site]
        empty = torch.empty(0, *spec["shape"], dtype=getattr(torch, spec["dtype"]))
        return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else empty

    def prompt(self, number: int) -> dict[str, torch.Tensor]:
        """One prompt's activations by site, and its "position" and "token" of each row."""
        rows = (self.prompt_of == number).nonzero().flatten()
        if not len(rows):
            raise NotFoundError(f"there are no rows of prompt {number} in {self.folder}", where=where())
        begin, end = int(rows[0]), int(rows[-1]) + 1
        labels = {"position": self.position_of[begin:end], "token": self.token_of[begin:end]}
        return labels | {site: self.read(site, begin, end) for site in self.sites}

    def __getitem__(self, site: str) -> xarray.DataArray:
        from weft.collect.labelled import labelled

        return labelled(self, site)

    def dataset(
        self,
        sites: str | list[str],
        batch_size: int = 1024,
        *,
        shuffle: bool = True,
        seed: int = 0,
        labels: bool = False,
    ) -> Rows:
        """A PyTorch data set of batches: [batch_size, …] of one site, or a dict of several by name.

        Shuffled across the shards, anew at each pass. With `labels` a batch is a dict that has prompt, position and token
        too. Give it to a DataLoader with batch_size=None, or iterate it.
        """
        from weft.collect.dataset import Rows

        for site in [sites] if isinstance(sites, str) else sites:
            self._check(site)
        return Rows(self, sites, batch_size, shuffle=shuffle, seed=seed, labels=labels)

    # -- files ---

    def _check(self, site: str) -> None:
        if site not in self.about["sites"]:
            raise NotFoundError(f"{site} was not collected; there are {', '.join(self.sites)}", where=where())

    def _file(self, at: int) -> Any:
        from safetensors import safe_open

        if at not in self._files:
            path = self.folder / self._folder.entries[at]["file"]
            self._files[at] = safe_open(path, framework="pt")  # type: ignore[no-untyped-call]
        return self._files[at]

    def _whole(self, at: int, name: str) -> torch.Tensor:
        return self._file(at).get_tensor(name)

    def _label(self, name: str) -> torch.Tensor:
        found = [self._whole(at, name) for at in range(len(self._folder.entries))]
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
