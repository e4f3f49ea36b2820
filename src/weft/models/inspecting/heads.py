"""Which projection gives q, which k, which v, and how heads lie in them: found by changing each and looking at z.

Twice v is twice z. What is done to q at one position moves z there alone; what is done to k moves z at later positions
too. One column of q belongs to one head, so what of z it moves is that head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from weft.errors import ModelError
from weft.models.inspecting.layer import Layer
from weft.models.inspecting.watch import same
from weft.models.packing import split

Facts = dict[str, Any]
PACKINGS = ("side by side", "by group", "in four")
AT = 5
"""A position that has others before it and after it."""


class Heads:
    """Attention of a layer, whose output projection is `o`."""

    def __init__(self, layer: Layer, o: str, mlp: set[str]) -> None:
        self.layer, self.o = layer, o
        into = layer.seen.took(o)
        assert into is not None
        self.path, self.side, self.z = self._mix(into)
        before = list(layer.seen.given)
        self.readers = [p for p in layer.linears if p != o and p not in mlp and before.index(p) < before.index(o)]

    def _mix(self, into: torch.Tensor) -> tuple[str, str, torch.Tensor]:
        """Where heads are mixed no more: before `o`, or before a norm of all heads that `o` reads."""
        layer = self.layer
        for path in layer.inside:
            value = layer.seen.took(path, into.shape)
            if path in (self.o, *layer.linears) or list(layer.watch.modules[path].children()):
                continue
            if value is not None and same(layer.seen.gave(path), into) and not same(value, into):
                return path, layer.short(path), value
        return self.o, "", into

    def after(self, changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]) -> torch.Tensor:
        """z with what these modules give changed."""
        found = self.layer.changed(changes).took(self.path, self.z.shape)
        assert found is not None
        return found.double()

    def moved(self, changes: dict[str, Callable[[torch.Tensor], torch.Tensor]]) -> torch.Tensor:
        """Which numbers of z that moves: [position, column]."""
        apart = (self.after(changes) - self.z.double()).abs().amax(0)
        return apart > 1e-6 * self.z.double().abs().max()

    # -- which is which ---

    def facts(self) -> tuple[Facts, int]:
        """The facts of attention, and the number of heads."""
        kinds = {path: self._kind(path) for path in self.readers}
        kinds = {path: kind for path, kind in kinds.items() if kind}
        named: Facts = {"z": self.side} if self.side else {}
        by_kind = {kind: [path for path, each in kinds.items() if each == kind] for kind in "qkv"}
        if len(kinds) == 1:
            (qkv,) = kinds
            packing, norms, heads = self._packed(qkv)
            return {**named, "qkv": self.layer.short(qkv), **packing, **norms}, heads
        if len(kinds) != 3 or any(len(found) != 1 for found in by_kind.values()):
            seen = ", ".join(f"{self.layer.short(path)} ({kind}-like)" for path, kind in kinds.items())
            raise ModelError(
                f"the mix of values before {self.o} hangs on {seen or 'no projection'}: neither one each of q, k and v nor "
                "one of all three. So q, k, v are no outputs of modules here (latent attention?); weft has no columns for it"
            )
        q, k, v = (by_kind[kind][0] for kind in "qkv")
        norms = self._norms({"q": self.layer.seen.gave(q), "k": self.layer.seen.gave(k)})
        heads = self._heads(self._first_column(f"{self.layer.path}.{norms['q_norm']}" if "q_norm" in norms else q))
        self._check_width(heads, k)
        return {
            **named,
            **{name: self.layer.short(path) for name, path in zip("qkv", (q, k, v), strict=True)},
            **norms,
        }, heads

    def _kind(self, path: str) -> str:
        """ "q", "k" or "v" by what a change does to z; "" where it does nothing. Several in one are called "k"."""
        if not bool(self.moved({path: _uneven}).any()):
            return ""
        if same(self.after({path: lambda x: 2 * x}), 2 * self.z.double()):
            return "v"
        where = self.moved({path: _at(AT, _uneven)}).any(-1)
        return "q" if not bool(where[AT + 1 :].any()) else "k"

    def _first_column(self, path: str) -> torch.Tensor:
        return self.moved({path: _at(AT, _nudged)})[AT]

    def _heads(self, columns: torch.Tensor) -> int:
        """How many heads there are, where one column of one head's q moves these columns of z."""
        width, total = int(columns.sum()), len(columns)
        if not width or total % width or not bool(columns[:width].all()):
            raise ModelError(
                f"the first number of the queries moves {width} of the {total} numbers before {self.layer.short(self.o)}, not "
                "those of a first head; heads do not lie side by side"
            )
        return total // width

    def _check_width(self, heads: int, k: str) -> None:
        value, width = self.layer.seen.gave(k), self.z.shape[-1] // heads
        given = 0 if value is None else value.shape[-1]
        if not given or given % width:
            raise ModelError(f"{k} gives {given} numbers, no whole heads of {width}; are keys wider than values?")

    # -- norms of q and k ---

    def _norms(self, values: dict[str, torch.Tensor | None]) -> Facts:
        """The norms of q and k, and how they get them."""
        found: Facts = {}
        for name, value in values.items():
            for path in self.layer.inside:
                layout = None if path in self.layer.linears or value is None else self._layout(path, value)
                if layout:
                    found |= {
                        f"{name}_norm": self.layer.short(path),
                        **({"qk_layout": layout} if layout != "head" else {}),
                    }
                    break
        return found

    def _layout(self, path: str, value: torch.Tensor) -> str:
        taken, given = self.layer.seen.took(path), self.layer.seen.gave(path)
        if taken is None or given is None or given.shape != taken.shape or same(taken, given):
            return ""
        if same(taken, value):
            return "flat"
        if taken.dim() == 4 and same(taken.flatten(-2), value):
            return "head"
        return "head first" if taken.dim() == 4 and same(taken.transpose(1, 2).flatten(-2), value) else ""

    # -- one projection of all three ---

    def _packed(self, qkv: str) -> tuple[Facts, Facts, int]:
        heads = self._heads(self._first_column(qkv))
        value = self.layer.seen.gave(qkv)
        assert value is not None
        width = self.z.shape[-1] // heads
        kv_heads, rest = divmod(value.shape[-1] - self.z.shape[-1], 2 * width)
        sizes = {"n_heads": heads, "n_kv_heads": kv_heads, "d_head": width}
        for packing in PACKINGS if kv_heads and not rest and not heads % kv_heads else ():
            if packing == "in four" and (heads % 4 or kv_heads != heads):
                continue
            places = split(torch.arange(value.shape[-1]), packing, sizes)
            if self._fits(qkv, places, heads // kv_heads, width):
                q, k, _ = (value[..., each.flatten()] for each in places)
                return {} if packing == PACKINGS[0] else {"packing": packing}, self._norms({"q": q, "k": k}), heads
        raise ModelError(
            f"{qkv} gives q, k and v of {heads} heads in an order that weft has no name for; tried {', '.join(PACKINGS)}"
        )

    def _fits(self, qkv: str, places: list[torch.Tensor], group: int, width: int) -> bool:
        q, k, v = places
        if not same(self.after({qkv: _columns(v.flatten(), lambda x: 2 * x)}), 2 * self.z.double()):
            return False
        here = self.moved({qkv: _columns(q[-1], _uneven)}).any(0)
        served = [self.moved({qkv: _columns(each[-1], _uneven)}).any(0) for each in (k, v)]
        return _last(here, width) and all(_last(each, group * width) for each in served)


def _last(columns: torch.Tensor, count: int) -> bool:
    """Whether the last `count` columns are moved, and no others."""
    return bool(columns[-count:].any()) and not bool(columns[:-count].any())


def _at(position: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """A change at one position of [batch, pos, …] (or of [batch, head, pos, d_head])."""

    def made(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        axis = 2 if x.dim() == 4 and x.shape[1] != 9 else 1
        part = x.select(axis, position)
        part.copy_(change(part.clone()))
        return x

    return made


def _uneven(x: torch.Tensor) -> torch.Tensor:
    """Each number by another factor: a norm of q or k would undo one factor for all."""
    return x * torch.linspace(0.5, 1.5, x.shape[-1], dtype=x.dtype, device=x.device)


def _nudged(x: torch.Tensor) -> torch.Tensor:
    """The first number of the first head moved: [batch, columns] or [batch, head, columns]."""
    x = x.clone()
    x.flatten(1)[:, 0] += x.abs().max()
    return x


def _columns(
    which: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], torch.Tensor]:
    def made(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[..., which] = change(x[..., which])
        return x

    return made
