"""The equations that define the sites, checked on a model by numbers.

    for held in identities(loaded):
        print(held)                     # ok  2e-07  resid_pre + attn_out == resid_mid

What depends on attention's own steps is checked from outside as well, by changing something: twice the values must give
twice the mix, and a query's head must move the mix of that head and no other. So a wrong layout of q, k and v shows
even where attention cannot be looked into.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from weft.ir.nodes import Site
from weft.models.hooks import tapped

if TYPE_CHECKING:
    from weft.models.loaded import Loaded

TOLERANCE = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 0.1, "float16": 0.02}
"""Of the largest value; norms of float64 models often compute in float32."""
SHAPE = (2, 7)
Values = dict[Site, torch.Tensor]


@dataclass(frozen=True)
class Held:
    """One equation, its largest error as a part of the largest value, the layer where that is, and what is allowed."""

    equation: str
    error: float
    layer: int | None
    allowed: float

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        where = "" if self.layer is None or self.holds else f"   (at layer {self.layer})"
        return f"{'ok  ' if self.holds else 'FAIL'} {self.error:8.1e}   {self.equation}{where}"


def identities(loaded: Loaded, ids: torch.Tensor | None = None) -> tuple[Held, ...]:
    """Every equation of the sites that the model has, on the tokens `ids` [batch, pos] (None: a few drawn anew)."""
    return _Check(loaded, ids).all()


class _Check:
    def __init__(self, loaded: Loaded, ids: torch.Tensor | None) -> None:
        self.loaded, self.sizes = loaded, loaded.sizes
        draw = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, self.sizes["d_vocab"], SHAPE, generator=draw) if ids is None else ids
        self.allowed = TOLERANCE.get(loaded.card.dtype, 1e-4)
        layers = f"{loaded.family.layers}." if loaded.family else ""
        self.sites = {
            spec.site
            for spec in loaded.card.sites
            if not spec.site.path or (spec.site.path.startswith(layers) and spec.site.path[len(layers) :].isdigit())
        }
        self.base = self.run({})

    def run(self, changes: dict[Site, Callable[[torch.Tensor], torch.Tensor]]) -> Values:
        found: Values = {}

        def tap(site: Site) -> Callable[[torch.Tensor], torch.Tensor | None]:
            def keep(value: torch.Tensor) -> torch.Tensor | None:
                new = changes[site](value) if site in changes else None
                found[site] = (value if new is None else new).detach().clone()
                return new

            return keep

        with torch.no_grad(), tapped(self.loaded, {site: tap(site) for site in self.sites}):
            self.loaded.forward({"tokens": self.ids})
        return found

    def all(self) -> tuple[Held, ...]:
        found: list[Held] = []
        for equation, each in self._layered().items():
            errors = [(error, layer) for layer in range(self.sizes["n_layers"]) if (error := each(layer)) is not None]
            if errors:
                found.append(Held(equation, *max(errors), self.allowed))
        error = self._unembedded()
        return (*found, *([] if error is None else [Held("unembed(final_norm) == logits", error, None, self.allowed)]))

    def _layered(self) -> dict[str, Callable[[int], float | None]]:
        family: Any = self.loaded.family
        parallel = bool(family and family.parallel)
        stream: dict[str, Callable[[int], float | None]] = (
            {
                "resid_pre + attn_out + mlp_out == resid_post": self._parallel,
                "attn_out does not move mlp_out of its layer": self._apart_from_attention,
            }
            if parallel
            else {
                "resid_pre + attn_out == resid_mid": self._to_mid,
                "resid_mid + mlp_out == resid_post": self._to_post,
            }
        )
        return {
            "resid_post[l] == resid_pre[l+1]": self._passed_on,
            **stream,
            "softmax(scores) == pattern": self._softmax,
            "pattern @ v == z": self._mixed,
            "twice v gives twice z": self._linear,
            "one head of q moves that head of z alone": self._query,
            "one head of k moves the heads of z that it serves": lambda layer: self._served("k", layer),
            "one head of v moves the heads of z that it serves": lambda layer: self._served("v", layer),
            "head_out.sum(head) + b_O == attn_out": self._heads,
            "mlp_post @ W_out + b_out == mlp_out": self._neurons,
        }

    # -- the stream ---

    def at(self, name: str, layer: int | None = None, values: Values | None = None) -> torch.Tensor | None:
        return (self.base if values is None else values).get(Site(name, layer))

    def _pre(self, layer: int) -> torch.Tensor | None:
        return self.at("resid_post", layer - 1) if layer else self.at("embed")

    def _passed_on(self, layer: int) -> float | None:
        path = f"{self.loaded.family.layers}.{layer}" if self.loaded.family else ""
        return _apart(self._pre(layer), self.base.get(Site("module.input", None, path, 0, "")))

    def _to_mid(self, layer: int) -> float | None:
        return _apart(_sum(self._pre(layer), self.at("attn_out", layer)), self.at("resid_mid", layer))

    def _to_post(self, layer: int) -> float | None:
        return _apart(_sum(self.at("resid_mid", layer), self.at("mlp_out", layer)), self.at("resid_post", layer))

    def _parallel(self, layer: int) -> float | None:
        added = _sum(self.at("attn_out", layer), self.at("mlp_out", layer))
        return _apart(_sum(self._pre(layer), added), self.at("resid_post", layer))

    def _apart_from_attention(self, layer: int) -> float | None:
        if self.at("attn_out", layer) is None:
            return None
        changed = self.run({Site("attn_out", layer): lambda x: 0.5 * x})
        return _apart(self.at("mlp_out", layer, changed), self.at("mlp_out", layer))

    # -- attention ---

    def _softmax(self, layer: int) -> float | None:
        scores, pattern = self.at("scores", layer), self.at("pattern", layer)
        if scores is None or pattern is None or self._has_sinks(layer):
            return None  # with sinks, rows of the pattern sum to less than 1
        return _apart(torch.softmax(scores.double(), -1), pattern)

    def _has_sinks(self, layer: int) -> bool:
        family: Any = self.loaded.family
        return hasattr(self.loaded.module.get_submodule(f"{family.layers}.{layer}.{family.attn}"), "sinks")

    def _mixed(self, layer: int) -> float | None:
        pattern, v, z = (self.at(name, layer) for name in ("pattern", "v", "z"))
        if pattern is None or v is None or z is None:
            return None
        each = v.repeat_interleave(z.shape[2] // v.shape[2], dim=2)
        return _apart(torch.einsum("bhqk,bkhd->bqhd", pattern.double(), each.double()), z)

    def _linear(self, layer: int) -> float | None:
        z = self.at("z", layer)
        if z is None or self.at("v", layer) is None:
            return None
        changed = self.run({Site("v", layer): lambda v: 2 * v})
        return _apart(2 * z, self.at("z", layer, changed))

    def _query(self, layer: int) -> float | None:
        return self._moves("q", layer, 1)

    def _served(self, name: str, layer: int) -> float | None:
        return self._moves(name, layer, self.sizes["n_heads"] // self.sizes["n_kv_heads"])

    def _moves(self, name: str, layer: int, group: int) -> float | None:
        """How far heads of z move that should not; 1 where one that should does not move at all."""
        before, value = self.at("z", layer), self.at(name, layer)
        if before is None or value is None:
            return None
        head = value.shape[2] - 1
        changed = self.run({Site(name, layer): lambda x: x * _only(x, head, -0.5)})
        after = self.at("z", layer, changed)
        assert after is not None
        mine = torch.zeros(before.shape[2], dtype=torch.bool)
        mine[head * group : (head + 1) * group] = True
        moved = (after.double() - before.double()).abs().amax((0, 1, 3)).cpu() / (before.double().abs().max().cpu())
        return 1.0 if bool((moved[mine] < 1e-9).any()) else float(moved[~mine].max()) if bool((~mine).any()) else 0.0

    def _heads(self, layer: int) -> float | None:
        family: Any = self.loaded.family
        z, out = self.at("z", layer), self.at("attn_out", layer)
        if z is None or out is None or family.attn_adds not in ("", family.o) or f"W_O[{layer}]" not in self._params:
            return None
        if family.z:  # a norm lies between z and W_O
            share = self.at("head_out", layer)
            if share is None:
                return None
            return _apart(self._plus(share.double().sum(2), f"b_O[{layer}]", family.times), out)
        share = torch.einsum("bphd,hdm->bpm", z.double(), self.loaded.param(f"W_O[{layer}]").double())
        return _apart(self._plus(share, f"b_O[{layer}]") * family.times, out)

    # -- MLP and the end ---

    def _neurons(self, layer: int) -> float | None:
        family: Any = self.loaded.family
        post, out = self.at("mlp_post", layer), self.at("mlp_out", layer)
        if post is None or out is None or family.mlp_adds not in ("", family.mlp_out):
            return None
        made = self._plus(post.double() @ self.loaded.param(f"W_out[{layer}]").double(), f"b_out[{layer}]")
        return _apart(made * family.times, out)

    def _unembedded(self) -> float | None:
        final, logits = self.at("final_norm"), self.at("logits")
        if final is None or logits is None or "unembed" not in self.loaded.card.by_part:
            return None
        with torch.no_grad():
            return _apart(self.loaded.apply("unembed", final), logits)

    @property
    def _params(self) -> dict[str, Any]:
        return dict(self.loaded.card.params)

    def _plus(self, value: torch.Tensor, bias: str, times: float = 1.0) -> torch.Tensor:
        return value + self.loaded.param(bias).double() * times if bias in self._params else value


def _only(x: torch.Tensor, head: int, factor: float) -> torch.Tensor:
    scale = torch.ones(x.shape[2], dtype=x.dtype, device=x.device)
    scale[head] = factor
    return scale[:, None]


def _sum(left: torch.Tensor | None, right: torch.Tensor | None) -> torch.Tensor | None:
    return None if left is None or right is None else left.double() + right.double()


def _apart(left: torch.Tensor | None, right: torch.Tensor | None) -> float | None:
    """The largest difference as a part of the largest value; infinite where shapes or numbers are no good."""
    if left is None or right is None:
        return None
    if left.shape != right.shape:
        return float("inf")
    left, right = left.detach().double(), right.detach().double()
    error = float((left - right).abs().max() / right.abs().max().clamp(min=1e-30))
    return error if error == error else float("inf")


def failing(found: tuple[Held, ...]) -> Iterator[Held]:
    return (each for each in found if not each.holds)
