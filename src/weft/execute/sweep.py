"""One pass over the layers: packed tokens of segments, which enter at their first layer and leave after their last."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from weft.errors import ExecutionError, JobCancelledError
from weft.execute.attend import Group, Part, Store, attend, part, stored
from weft.execute.packed import Arguments
from weft.execute.segments import Segment, spans
from weft.ir.nodes import Site
from weft.models.attention import How
from weft.models.hooks import installed
from weft.plan.forks import IN_LAYER
from weft.plan.places import layer_of

if TYPE_CHECKING:
    from weft.execute.engine import Engine


class Seen(NamedTuple):
    """What attention has in a layer: queries, keys and values, and what comes out, all [1, token, head, d_head]."""

    layer: int
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    out: torch.Tensor


class Enough(Exception):
    """A pass has come to the last site that anybody needs."""


class Sweep:
    """One pass over the layers. Segments enter at their layer and leave after their last."""

    def __init__(
        self, engine: Engine, segments: list[Segment], tokens: int, parents: Any, keep_keys: Store | None = None
    ) -> None:
        self.engine, self.segments, self.parents, self.keep_keys = engine, segments, parents, keep_keys
        self.count = tokens
        self.active: list[Segment] = []
        self.lookup = torch.full((tokens + 1,), -1)  # pass token → active token; the last entry stands for "none"
        self.groups: list[Group] = []
        self.site_taps: dict[Site, Callable[[Any], Any]] = {}
        longest = max((segment.last for segment in segments), default=-1)
        whole = any(segment.last == longest and not segment.half for segment in segments)
        self.half = -1 if whole else longest  # the layer that ends with z, if any

    def places(self, own: torch.Tensor) -> torch.Tensor:
        """A run's tokens among those active now."""
        return self.lookup[own]

    def active_tokens(self) -> torch.Tensor | None:
        """The pass's tokens that are in it now; None where all are, in order (also before the layers)."""
        return self._ids() if self.active else None

    def run(self, last: int, taps: dict[Site, Callable[[Any], Any]]) -> None:
        """Go through the layers up to `last`, calling the taps as their sites pass."""
        engine, packed = self.engine, self.engine.packed
        self.site_taps = taps
        raw = {site: layer_of(engine.loaded.card, site) for site in taps if site.path}
        inner = {site for site in taps if site.name in IN_LAYER or raw.get(site, -1) >= 0}
        ids = torch.tensor([token for segment in self.segments for token in segment.row[segment.first :]])
        positions = torch.cat([torch.arange(segment.first, len(segment.row)) for segment in self.segments])
        engine.work.passes += 1
        engine.work.rows += len(self.segments)
        with packed.open():
            with self._hooked({site for site, layer in raw.items() if layer < 0}):
                self.lookup[: self.count] = torch.arange(self.count)
                arguments = packed.arguments(ids, positions)
            packed.attend = self._attend
            with self._hooked(inner):
                self._layers(last, arguments)
        # The hooks that were installed lead back here, in a circle: what the pass held must not live as long as that.
        packed.attend, self.site_taps, self.groups = None, {}, []
        del self.engine, self.parents, self.keep_keys

    def _hooked(self, sites: set[Site]) -> AbstractContextManager[Any]:
        loaded = self.engine.loaded
        if not sites:
            return nullcontext()
        return installed(loaded.module, loaded.family, loaded.card.sizes, sites, self._inner, self._raw)

    def _layers(self, last: int, arguments: Arguments) -> None:
        engine = self.engine
        hidden = arguments.hidden[:, :0]
        for layer in range(last + 2):
            if engine.cancelled():
                raise JobCancelledError("the job was cancelled while it ran")
            hidden = self._enter(layer, hidden, arguments)
            hidden = self._pass_site(layer, hidden)
            if layer > last:
                break
            hidden = self._leave(layer, hidden)
            if self.active:
                args, kwargs = arguments.at(layer, self._ids())
                engine.work.done += hidden.shape[1]
                weights = engine.packed.before_z if layer == self.half else engine.packed.weights
                engine.work.flops += 2 * hidden.shape[1] * weights[layer]
                try:
                    hidden = engine.packed.layer(layer, hidden, args, kwargs)
                except Enough:
                    return

    def _pass_site(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """The stream between two layers is a site: of the layer before, or the embedding."""
        tap = self.site_taps.get(self.engine.entry(layer))
        changed = tap(hidden) if tap is not None and self.active else None
        return hidden if changed is None else changed

    def _enter(self, layer: int, hidden: torch.Tensor, arguments: Arguments) -> torch.Tensor:
        """Take in the segments that begin here."""
        enter = [segment for segment in self.segments if segment.layer == layer]
        if not enter:
            return hidden
        fresh = self._entering(enter, layer, arguments)
        hidden = torch.cat([hidden, fresh], 1) if self.active else fresh
        self._set_active(self.active + enter)
        return hidden

    def _leave(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """Let those go whose last layer is past."""
        stay = [segment for segment in self.active if segment.last >= layer]
        if len(stay) == len(self.active):
            return hidden
        hidden = hidden.index_select(1, self._places_of(stay))
        self._set_active(stay)
        return hidden

    def _set_active(self, segments: list[Segment]) -> None:
        self.active = segments
        tokens = spans(segments)
        self.lookup.fill_(-1)
        self.lookup[tokens] = torch.arange(len(tokens))
        self.groups = self._grouped()

    def _places_of(self, segments: list[Segment]) -> torch.Tensor:
        return self.lookup[spans(segments)]

    def _entering(self, segments: list[Segment], layer: int, arguments: Arguments) -> torch.Tensor:
        """What enters the layer is the base's, from the fork's position on."""
        if layer == 0:
            return arguments.hidden.index_select(1, spans(segments))
        saved = self.engine.saved[self.engine.entry(layer)]
        places = []
        for segment in segments:
            run = self.engine.runs[segment.run]
            at = run.fork.starts[segment.run_row] + segment.first
            places.append(run.shared[segment.run_row, at : at + segment.length])
        return saved.index_select(0, torch.cat(places))[None]

    def _ids(self) -> torch.Tensor | None:
        if len(self.active) == len(self.segments):
            straight = all(a is b for a, b in zip(self.active, self.segments, strict=True))
            if straight:
                return None
        return spans(self.active)

    # -- attention -------------------------------------------------------------------------------------------------------

    def _grouped(self) -> list[Group]:
        alike: dict[tuple[int, ...], list[tuple[Segment, int]]] = defaultdict(list)  # of one length, at the same stores
        at = 0
        for segment in self.active:
            alike[segment.length, *segment.keys].append((segment, at))
            at += segment.length
        return [self._group(length, members) for (length, *_), members in alike.items()]

    def _group(self, length: int, members: list[tuple[Segment, int]]) -> Group:
        starts = torch.tensor([at for _, at in members])
        tokens = starts[:, None] + torch.arange(length)
        straight = bool((starts == starts[0] + length * torch.arange(len(starts))).all())
        parts: list[Part] = []
        for store, rows, valid in self.parents([segment for segment, _ in members]):
            found = part(store, torch.tensor(rows), torch.tensor(valid))
            if found is not None:
                parts.append(found)
        return Group(tokens, int(starts[0]) if straight else None, tuple(parts))

    def _attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: How) -> torch.Tensor:
        self.engine.how[layer] = how
        q, k, v = (self._passed(Site(name, layer), x) for name, x in (("q_rot", q), ("k_rot", k), ("value", v)))
        if self.keep_keys is not None:
            starts, at = [], 0
            for segment in self.active:
                starts.append(at)
                at += segment.length
            lengths = [segment.length for segment in self.active]
            self.keep_keys.keys[layer] = stored(k, starts, lengths)
            self.keep_keys.values[layer] = stored(v, starts, lengths)
        look = self.site_taps.get(Site("pattern", layer))
        last = layer == self.half and Site("z", layer) not in self.site_taps
        if last and look is None:
            raise Enough
        out = attend(self.groups, layer, q, k, v, how)
        if look is not None:
            out = look(Seen(layer, q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), out))
        if last:
            raise Enough
        return out

    def _passed(self, site: Site, value: torch.Tensor) -> torch.Tensor:
        """Offer [1, head, token, d] as [1, token, head, d]."""
        tap = self.site_taps.get(site)
        changed = tap(value.transpose(1, 2)) if tap is not None else None
        return value if changed is None else changed.transpose(1, 2)

    def _inner(self, site: Site, value: torch.Tensor) -> torch.Tensor | None:
        changed = self.site_taps[site](value) if site in self.site_taps else None
        if site.name == "z" and site.layer == self.half:
            raise Enough
        return changed

    def _raw(self, path: str, name: str, call: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Offer what a module takes or gives. What gives one tensor here may be known to give several ("0", "1")."""
        changed: dict[str, torch.Tensor] = {}
        for item, value in tensors.items():
            known = (item, "0") if len(tensors) == 1 and not item else (item,)
            tap = next((tap for each in known if (tap := self.site_taps.get(Site(name, None, path, call, each)))), None)
            if tap is None:
                continue
            if value.shape[:2] != (1, int((self.lookup >= 0).sum())):
                raise ExecutionError(f"module({path}) is not called on tokens one after another, as its card says")
            new = tap(value.clone())  # a copy: the module may write into its own input
            if new is not None:
                changed[item] = new
        return changed
