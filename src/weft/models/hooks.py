"""Look at, and change, what passes through a model. The one file that touches torch's hooks.

    with tapped(loaded, {Site("z", 5): keep, Site("resid_post", 3): lambda x: x + vector}):
        logits = loaded.forward({"tokens": ids})

Before a module the standard sites come first, then its raw input; after it its raw output, then the standard sites.
So a tap sees what the taps before it left, and the order is the card's.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from weft.errors import ExecutionError
from weft.ir.nodes import Site
from weft.models import attention, structure
from weft.models.families import INSIDE_ATTENTION, Family
from weft.models.points import Offer, Points, points
from weft.models.supplied import supplied
from weft.models.unseen import LOCAL as _LOCAL
from weft.models.unseen import unseen as unseen

if TYPE_CHECKING:
    from weft.models.loaded import Loaded

Tap = Callable[[torch.Tensor], torch.Tensor | None]
RawOffer = Callable[[str, str, int, dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""`raw(path, "module.input", call, tensors by name)`: those that changed, by name."""


class _Turn:
    """Whose turn it is with a model, and whether it is tapped meanwhile."""

    __slots__ = ("lock", "tapped")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.tapped = False


_TURNS: weakref.WeakKeyDictionary[nn.Module, _Turn] = weakref.WeakKeyDictionary()
_TURNS_GUARD = threading.Lock()


def lock_of(module: nn.Module) -> threading.RLock:
    """The lock of a model: one thread at a time taps it or runs it, so taps are never another thread's.

    It belongs to the module, not to its Loaded: the same model may have been wrapped twice.
    """
    return _turn_of(module).lock


def _turn_of(module: nn.Module) -> _Turn:
    with _TURNS_GUARD:
        found = _TURNS.get(module)
        if found is None:
            found = _TURNS[module] = _Turn()
        return found


@contextmanager
def tapped(loaded: Loaded, taps: Mapping[Site, Tap], once: bool = False) -> Iterator[None]:
    """While open, each forward of `loaded.module` in this thread calls each tap once, in the card's order.

    A tap gets the site's value in the site's layout and may return another to go on with. What a tap raises passes
    through. A site that a forward did not reach is an ExecutionError at that forward's end (`once`: there is to be one
    forward alone, and the error comes at the block's end). Hooks and the attention setting are as they were afterwards,
    whatever happened.
    """
    loaded.check_sites(taps)
    turn = _turn_of(loaded.module)
    with turn.lock:
        if turn.tapped:
            raise ExecutionError("this model is tapped already in this thread; put all taps into one `tapped`")
        turn.tapped = True
        handles: list[RemovableHandle] = []
        try:
            forward = _Forward(taps)
            offers = (forward.offer, forward.raw, "logits" if loaded.kind == "decoder" else "output")
            with installed(loaded.module, loaded.family, loaded.sizes, set(taps), *offers):
                if not once:
                    handles += _whole(loaded.module, forward)
                yield
                if once:
                    forward.finish()
        finally:
            for handle in handles:
                handle.remove()
            turn.tapped = False


class _Forward:
    """The taps of one context, and which of them the forward under way has called."""

    def __init__(self, taps: Mapping[Site, Tap]) -> None:
        self.taps = taps
        self.called: Counter[Site] = Counter()

    def offer(self, site: Site, value: torch.Tensor) -> torch.Tensor | None:
        tap = self.taps.get(site)
        if tap is None:
            return None
        self.called[site] += 1
        if self.called[site] > 1:
            raise ExecutionError(f"{site} was reached more than once in one forward pass")
        new = tap(value)
        if new is None or new is value:
            return None
        if new.shape != value.shape or new.dtype != value.dtype:
            raise ExecutionError(
                f"{site}: a tap returned {new.dtype}{list(new.shape)} where {value.dtype}{list(value.shape)} is needed"
            )
        return new

    def raw(self, path: str, name: str, call: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        changed = {}
        for item, value in tensors.items():
            site = Site(name, None, path, call, item)
            if site in self.taps:  # copies: the module may write into its own input (ReLU(inplace=True)), others into
                new = self.offer(site, value.clone())  # what it gives, and what the tap gave may be another run's
                if new is not None:
                    changed[item] = new.clone()
        return changed

    def start(self) -> None:
        self.called.clear()

    def finish(self) -> None:
        missed = [str(site) for site in self.taps if not self.called[site]]
        if missed:
            raise ExecutionError(
                f"the forward pass never reached {', '.join(missed)}: the module was not called with these inputs; "
                "see model.sites() for what is called"
            )


def _whole(module: nn.Module, forward: _Forward) -> list[RemovableHandle]:
    """Hooks on the whole model that tell `forward` of a pass's beginning and, after all others, of its end."""
    owner = threading.get_ident()

    def start(_: nn.Module, __: Any) -> None:
        if threading.get_ident() == owner:
            forward.start()

    def finish(_: nn.Module, __: Any, ___: Any) -> None:
        if threading.get_ident() == owner:
            forward.finish()

    return [module.register_forward_pre_hook(start, prepend=True), module.register_forward_hook(finish)]


@contextmanager
def installed(
    module: nn.Module,
    family: Family | None,
    sizes: dict[str, int],
    wanted: set[Site] | None,
    offer: Offer,
    raw: RawOffer,
    whole: str = "logits",
) -> Iterator[None]:
    """Hooks that offer the `wanted` sites (None: every site but those inside attention) as they pass."""
    names = {site.path for site in wanted if site.path} if wanted is not None else None
    found = points(family, module, sizes, offer, wanted) if family else _unknown(offer, whole)
    handles, hooks = [], _Hooks(found, raw, names, module)
    inner = {*INSIDE_ATTENTION, *(family.inside if family else ())}
    inside = {site for site in wanted or () if site.name in inner}
    try:
        if names is not None and not names:
            for path in found.before:
                handles.append(_part(module, path).register_forward_pre_hook(hooks.enters(path), with_kwargs=True))
            for path in found.after:
                handles.append(_part(module, path).register_forward_hook(hooks.leaves(path), with_kwargs=True))
        else:
            for path, each in _hooked(module, found, names).items():
                handles.append(each.register_forward_pre_hook(hooks.before(path), with_kwargs=True))
                handles.append(each.register_forward_hook(hooks.after(path), with_kwargs=True))
        for path in found.called:
            hook = hooks.called(path)
            handles.append(_part(module, path).register_forward_pre_hook(hook, with_kwargs=True, prepend=True))
        for path in found.gave:
            handles.append(_part(module, path).register_forward_hook(hooks.gave(path), with_kwargs=True))
        if inside and family:
            with _own_attention(module, family, inside, offer):
                yield
        else:
            yield
    finally:
        for handle in handles:
            handle.remove()


def _part(module: nn.Module, path: str) -> nn.Module:
    """The part at a path that a family's table names (`get_submodule` looks at each step of any path: ten times as long)."""
    return reduce(getattr, path.split("."), module) if path else module


def _unknown(offer: Offer, whole: str) -> Points:
    """A model without a table: what the whole gives is known all the same."""
    return Points(after={"": [lambda value, _: offer(Site(whole), value)]})


def _hooked(module: nn.Module, found: Points, names: set[str] | None) -> dict[str, nn.Module]:
    paths = {path for path, _ in module.named_modules()} if names is None else names
    paths = paths | set(found.before) | set(found.after) | {""}
    return {path: module.get_submodule(path) for path in sorted(paths)}


class _Hooks:
    """The hooks themselves, for one context in one thread."""

    def __init__(self, found: Points, raw: RawOffer, names: set[str] | None, module: nn.Module) -> None:
        self.found, self.raw, self.names = found, raw, names
        self.owner = threading.get_ident()
        self.calls: Counter[str] = Counter()
        self.open: dict[str, list[int]] = {}

    def wants(self, path: str) -> bool:
        return bool(path) and (self.names is None or path in self.names)

    def before(self, path: str) -> Callable[..., Any]:
        own = self.found.before.get(path, [])

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self.owner or _LOCAL.unseen:
                return None
            if not path:
                self.calls.clear()
                self.open.clear()
            self.open.setdefault(path, []).append(self.calls[path])
            self.calls[path] += 1
            if not own and not self.wants(path):
                return None
            merged = structure.arguments(args, kwargs)
            merged = _through(merged, own, None)
            if self.wants(path):
                merged = self._raw(merged, path, "module.input", self.open[path][-1])
            return structure.split_arguments(merged, len(args))

        return hook

    def after(self, path: str) -> Callable[..., Any]:
        own = self.found.after.get(path, [])

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if threading.get_ident() != self.owner or _LOCAL.unseen:
                return None
            call = self.open[path].pop()
            if self.wants(path):
                output = self._raw(output, path, "module.output", call)
            if not own:
                return output
            given = next(iter(structure.full_names(structure.arguments(args, kwargs)).values()), None)
            return _through(output, own, given)

        return hook

    # Where no raw module is asked for, calls need not be counted, and a hook looks at the first tensor alone.

    def enters(self, path: str) -> Callable[..., Any]:
        own = self.found.before[path]

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != self.owner or _LOCAL.unseen:
                return None
            if args and isinstance(args[0], torch.Tensor):
                value = _through(args[0], own, None)
                return None if value is args[0] else ((value, *args[1:]), kwargs)
            return structure.split_arguments(_through(structure.arguments(args, kwargs), own, None), len(args))

        return hook

    def leaves(self, path: str) -> Callable[..., Any]:
        own = self.found.after[path]

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            if threading.get_ident() != self.owner or _LOCAL.unseen:
                return None
            given = args[0] if args else None
            if not isinstance(given, torch.Tensor):
                given = next(iter(structure.full_names(structure.arguments(args, kwargs)).values()), None)
            if type(output) is tuple and output and isinstance(output[0], torch.Tensor):
                value = _through(output[0], own, given)
                return None if value is output[0] else (value, *output[1:])
            return _through(output, own, given)

        return hook

    # Points that look at a whole call: standard sites still come before a raw input, and after a raw output.

    def called(self, path: str) -> Callable[..., Any]:
        point = self.found.called[path]

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            aside = threading.get_ident() != self.owner or _LOCAL.unseen
            return None if aside else point(module, args, kwargs)

        return hook

    def gave(self, path: str) -> Callable[..., Any]:
        point = self.found.gave[path]

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            aside = threading.get_ident() != self.owner or _LOCAL.unseen
            return None if aside else point(module, args, kwargs, output)

        return hook

    def _raw(self, value: Any, path: str, name: str, call: int) -> Any:
        full = structure.full_names(value)
        paths = structure.short_names(full, first_is_bare=name == "module.input")
        for item, new in self.raw(path, name, call, {item: full[each] for item, each in paths.items()}).items():
            value = structure.replaced(value, paths[item], new)
        return value


def _through(value: Any, own: list[Any], given: torch.Tensor | None) -> Any:
    """`value` with its first tensor passed through each point."""
    for point in own:
        if isinstance(value, torch.Tensor):
            new = point(value, given)
            value = value if new is None else new
            continue
        name, first = next(iter(structure.full_names(value).items()))
        new = point(first, given)
        if new is not None:
            value = structure.replaced(value, name, new)
    return value


@contextmanager
def _own_attention(module: nn.Module, family: Family, inside: set[Site], offer: Offer) -> Iterator[None]:
    """transformers' attention replaced by weft's: the name is looked up in a setting that all layers share."""
    attention.register()
    config: Any = module.config
    seen = {
        module.get_submodule(f"{family.layers}.{layer}.{family.attn}"): attention.Seen(_emitter(family, layer, offer))
        for layer in sorted({site.layer for site in inside if site.layer is not None})
    }
    # The attention function is not told the cache, so the module's own arguments are noted on the way in.
    handles = [each.register_forward_pre_hook(_note_cache(seen[each]), with_kwargs=True) for each in seen]
    original = config._attn_implementation
    attention.LOCAL.active.append(attention.Active(config, original, {id(each): note for each, note in seen.items()}))
    config._attn_implementation = attention.NAME
    try:
        with supplied(module, family):
            yield
    finally:
        config._attn_implementation = original
        attention.LOCAL.active.pop()
        for handle in handles:
            handle.remove()


def _emitter(family: Family, layer: int, offer: Offer) -> attention.Emit:
    """Offers what is seen only here; v and z of most families are seen as they pass modules."""
    names = {*INSIDE_ATTENTION, *family.inside}
    return lambda name, value: offer(Site(name, layer), value) if name in names else None


def _note_cache(note: attention.Seen) -> Callable[..., None]:
    def hook(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        note.cache = next((kwargs[name] for name in ("past_key_values", "layer_past") if name in kwargs), None)

    return hook
