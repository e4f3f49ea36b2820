"""A run as the user sees it: one forward pass whose sites are read and written like tensors.

run.resid_post[5][:, -1] += v       a place in a layer
run.z[:]                            every layer, stacked: [layer, batch, pos, head, d_head]
run.embed = x                       a whole site
run.module("transformer.h.5").output
run["blocks.5.attn.hook_z"]         by its TransformerLens name
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import torch

from weft.errors import SiteError
from weft.ir.card import Card, Dim
from weft.ir.nodes import EACH, Read, Ref, Site
from weft.models.names import OTHERS
from weft.models.names import resolve as resolve_name
from weft.trace.location import where
from weft.trace.modules import ModuleSite
from weft.trace.places import Places
from weft.trace.storage import Origin, Storage
from weft.trace.tensor import Signature, Traced

if TYPE_CHECKING:
    from weft.trace.session import Session

_OWN = frozenset(
    "session index card kind inputs tokens start mask rows batch pos _layered _resolved _sites _step _prompt label".split()
)


class Run(Places):
    """One forward pass of a batch. Every site of the model is an attribute; see `model.sites()`."""

    index: int
    card: Card
    kind: str
    inputs: dict[str, torch.Tensor]
    label: str
    _layered: frozenset[str]
    _resolved: dict[tuple[str, int | None], Site]
    _sites: dict[tuple[Site, int | None], Storage]
    _step: int | None
    _prompt: Run

    def __init__(self, session: Session, index: int, kind: str, inputs: dict[str, torch.Tensor], card: Card) -> None:
        size = next(iter(inputs.values())).shape
        vars(self).update(  # not one by one through __setattr__, which looks for sites
            session=session,
            index=index,
            card=card,
            kind=kind,
            inputs=inputs,
            batch=int(size[0]) if size else 1,
            pos=int(size[1]) if len(size) > 1 else 1,
            tokens=inputs.get("tokens"),
            label=f"run {session.count_run()}",
            _layered=card.layered,
            _resolved=card.resolved,
            _sites={},
            _step=None,
            _prompt=self,
        )

    @cached_property
    def start(self) -> torch.Tensor:  # type: ignore[override]
        """The first real position of each row, LongTensor [batch]."""
        start = self.inputs.get("start")
        return torch.zeros(self.batch, dtype=torch.long) if start is None else start

    @cached_property
    def mask(self) -> torch.Tensor:
        """Which positions are real, BoolTensor [batch, pos]."""
        return torch.arange(self.pos)[None, :] >= self.start[:, None]

    @cached_property
    def rows(self) -> torch.Tensor:
        """0, 1, … batch − 1: the first index where rows are taken at different positions."""
        return torch.arange(self.batch)

    def __repr__(self) -> str:
        return self.label

    def fork(self) -> Run:
        """The same prompts again, to be edited: a run of its own that shares nothing but its inputs."""
        return self.session.again(self)

    def module(self, path: str) -> ModuleSite:
        """Any module of the model by its own path: `.input` and `.output`, to be read or assigned."""
        return ModuleSite(self, path)

    # -- sites ---

    def site(self, site: Site) -> Traced:
        """The value at a site, as a traced tensor."""
        storage = self._storage(site)
        assert storage.signature is not None
        return Traced(storage, storage.signature)

    def assign(self, site: Site, value: Any) -> None:
        """Give a whole site a new value (broadcast to the site's shape)."""
        x = self.site(site)
        if isinstance(value, Traced) and value._st is x._st and not value._chain:
            return
        x[...] = value

    def order(self, site: Site, step: int | None) -> tuple[int, int]:
        """Where in the computation a site comes: the step, and the site's place in the pass."""
        return (step or 0, self.card.by_site[site][0])

    def _lengths(self) -> tuple[int, int, int]:
        return self.batch, self.pos, self.pos

    def _storage(self, site: Site) -> Storage:
        self.session.check_usable()
        found = self._prompt._sites.get((site, self._step))
        if found is None:
            if site not in self.card.by_site:
                raise SiteError(f"this model has no site {site}; model.sites() lists those it has", where=where())
            spec = self.card.by_site[site][1]
            graph = self.session.graph
            signature = _signature(spec.dims, spec.dtype, *self._lengths())
            read = graph.add(Read(self.index, site, self._step))
            storage = Storage(graph, self.session, read, root_size=signature[1])
            storage.signature = signature
            storage.origin = Origin(self, site, spec, self._step)
            found = self._prompt._sites[site, self._step] = storage
        return found

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._layered or name in OTHERS:
            return Layers(self, name)
        return self.site(self.resolve(name, None))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        elif name in self._layered or name in OTHERS:
            raise SiteError(f"{name} has a layer: write run.{name}[layer] = value", where=where())
        else:
            self.assign(self.resolve(name, None), value)

    def __getitem__(self, name: str) -> Traced:
        return self.site(self.resolve(name, None))

    def __setitem__(self, name: str, value: Any) -> None:
        self.assign(self.resolve(name, None), value)

    def resolve(self, name: str, layer: int | None) -> Site:
        """The site of that name; SiteError at the user's line, with the nearest names, if there is none."""
        found = self._resolved.get((name, layer))
        if found is None:
            try:
                found = self._resolved[name, layer] = resolve_name(name, layer, self.card)
            except SiteError as error:
                raise error.at(where()) from None
        return found

    def __dir__(self) -> list[str]:
        return sorted(
            {*super().__dir__(), *self.card.layered, *(s.site.name for s in self.card.sites if not s.site.path)}
        )


@lru_cache(maxsize=1 << 12)
def _signature(dims: tuple[Dim, ...], dtype: str, batch: int, pos: int, key: int) -> Signature:
    """Dtype, size and strides of a site of these lengths."""
    size = tuple(dim.at(batch, pos, key) for dim in dims)
    return getattr(torch, dtype), size, contiguous(size)


def contiguous(size: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides."""
    strides, step = [], 1
    for length in reversed(size):
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides))


class Layers:
    """A site of every layer: `run.z[5]` is one, `run.z[:]` all of them stacked, `run.z[5] = x` assigns one."""

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name} of {self.run}: index it by layer, e.g. run.{self.name}[0] or run.{self.name}[:]>"

    def __len__(self) -> int:
        layers = self.run.card.layers_of
        alike = "resid_post" if self.name == "resid_pre" or self.name in OTHERS else self.name
        return layers.get(alike, 0)

    def __getitem__(self, layer: Any) -> Traced:
        if isinstance(layer, slice):
            return self._stack(list(range(*layer.indices(len(self)))))
        if isinstance(layer, list | tuple | range):
            return self._stack([self._layer(item) for item in layer])
        return self.run.site(self.run.resolve(self.name, self._layer(layer)))

    def __setitem__(self, layer: Any, value: Any) -> None:
        if isinstance(layer, slice | list | tuple):
            if isinstance(value, Traced) and value._st.frozen:
                raise SiteError(value._st.frozen, where=where())
            raise SiteError(
                f"assign one layer at a time: for l, x in enumerate(values): run.{self.name}[l] = x", where=where()
            )
        self.run.assign(self.run.resolve(self.name, self._layer(layer)), value)

    def __iter__(self) -> Any:
        return (self[layer] for layer in range(len(self)))

    def _layer(self, layer: Any) -> int:
        try:
            number = layer.__index__()
        except AttributeError:
            raise SiteError(f"a layer is a whole number, not {layer!r}", where=where()) from None
        count = len(self)
        if count and not -count <= number < count:
            raise SiteError(
                f"{self.name}[{number}]: this model has layers 0 to {count - 1} (or -{count} to -1)", where=where()
            )
        return number % count if count else number

    def _stack(self, layers: list[int]) -> Traced:
        if not layers:
            raise SiteError(f"{self.name}: no layers in that slice; the model has {len(self)}", where=where())
        stacked = torch.stack([self[layer] for layer in layers])
        assert isinstance(stacked, Traced)
        stacked._st.frozen = (
            f"this is a copy of several layers of {self.name}, so writing into it would change nothing in the model; "
            f"write run.{self.name}[layer][...] = value, one layer at a time"
        )
        return stacked


__all__ = ["EACH", "Layers", "Ref", "Run", "contiguous"]
