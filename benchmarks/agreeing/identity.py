"""Whether a value is the site it is said to be: the identities of docs/sites.md, on the model's own modules and stream.

What a layer takes and gives, and what its projections make of a value, are taken from the model by hooks of its own.
`Truth(folder).off("z.1", values)` is how far `values["z.1"]` is from its identity, relative to the largest entry, and
None where no identity decides. Where an identity takes a second site, that is weft's.
"""

from __future__ import annotations

from pathlib import Path

import torch

from agreeing.checkpoints import opened, prompts
from agreeing.recipe import ACTIVATION, ATTENTION, DOWN, KEYS, MLP, OUT, QUERIES, ROUTER, layers_path, named

Values = dict[str, torch.Tensor]
CLOSE = 2e-4
"""Largest difference, relative to the largest entry: everything is float32."""
NORMED_AFTER = ("hunyuan_v1_dense", "hunyuan_v1_moe", "nanochat", "llama4_text")
"""Types that norm q and k after rotary."""


class Truth:
    """A checkpoint's stream, by plain hooks, and weft's values for what an identity needs beside the value judged."""

    def __init__(self, folder: Path, weft: Values) -> None:
        self.module, self.weft = opened(folder), weft
        self.config = self.module.config
        self.path = layers_path(self.module)
        self.layers = list(self.module.get_submodule(self.path))
        self.given: dict[str, torch.Tensor] = {}
        self.gave: dict[str, torch.Tensor] = {}
        handles = [
            each.register_forward_hook(self._keep(path), with_kwargs=True) for path, each in self.module.named_modules()
        ]
        with torch.no_grad():
            self.logits = self.module(prompts(self.config.vocab_size), use_cache=False).logits
        for handle in handles:
            handle.remove()

    def _keep(self, path: str):
        def hook(_, args, kwargs, output) -> None:
            first = args[0] if args else kwargs.get("hidden_states")
            if isinstance(first, torch.Tensor):
                self.given[path] = first.clone()  # some models add to it where it lies
            output = output[0] if isinstance(output, tuple) else output
            if isinstance(output, torch.Tensor):
                self.gave[path] = output.clone()

        return hook

    @torch.no_grad()
    def off(self, key: str, values: Values) -> float | None:
        """How far that value is from its identity."""
        site, _, number = key.partition(".")
        judge = getattr(self, f"_{site}", None)
        if judge is None:
            return None
        try:
            return judge(values[key], *([int(number)] if number else []))
        except (RuntimeError, KeyError, IndexError, AttributeError):
            return None

    def _in(self, layer: int) -> torch.Tensor:
        return self.given[f"{self.path}.{layer}"]

    def _out(self, layer: int) -> torch.Tensor:
        return self.gave[f"{self.path}.{layer}"]

    def _inner(self, layer: int, names: tuple[str, ...], inner: tuple[str, ...]) -> str:
        """A part of a layer's attention or MLP by its whole path."""
        first = named(self.layers[layer], names)
        second = named(self.layers[layer].get_submodule(first), inner)  # "": an MLP whose parts are the layer's own
        if not second:
            raise KeyError(inner)
        return ".".join(filter(None, (self.path, str(layer), first, second)))

    # -- the stream ---

    def _embed(self, value: torch.Tensor) -> float:
        return apart(value, self._in(0))

    def _resid_post(self, value: torch.Tensor, layer: int) -> float:
        last = layer == len(self.layers) - 1
        return apart(value, self._out(layer) if last else self._in(layer + 1))

    def _resid_mid(self, value: torch.Tensor, layer: int) -> float:
        before = apart(self._in(layer) + self.weft[f"attn_out.{layer}"], value)
        return max(before, apart(value + self.weft[f"mlp_out.{layer}"], self._out(layer)))

    def _attn_out(self, value: torch.Tensor, layer: int) -> float:
        return apart(self._in(layer) + value + self.weft[f"mlp_out.{layer}"], self._out(layer))

    def _mlp_out(self, value: torch.Tensor, layer: int) -> float:
        return apart(self._in(layer) + self.weft[f"attn_out.{layer}"] + value, self._out(layer))

    def _final_norm(self, value: torch.Tensor) -> float:
        head = self.module.get_output_embeddings()
        path = next(path for path, each in self.module.named_modules() if each is head)
        return apart(head(value), self.gave[path])

    def _logits(self, value: torch.Tensor) -> float:
        return apart(value, self.logits)

    # -- attention ---

    def _mixed(self, pattern: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        each = v.repeat_interleave(pattern.shape[1] // v.shape[2], dim=2)
        return torch.einsum("bhqk,bkhd->bqhd", pattern, each)

    def _v(self, value: torch.Tensor, layer: int) -> float:
        return apart(self._mixed(self.weft[f"pattern.{layer}"], value), self.weft[f"z.{layer}"])

    def _z(self, value: torch.Tensor, layer: int) -> float:
        return apart(self._mixed(self.weft[f"pattern.{layer}"], self.weft[f"v.{layer}"]), value)

    def _pattern(self, value: torch.Tensor, layer: int) -> float:
        return apart(self._mixed(value, self.weft[f"v.{layer}"]), self.weft[f"z.{layer}"])

    def _scores(self, value: torch.Tensor, layer: int) -> float:
        """Their softmax is the pattern: up to one number a query (a sink's share), log pattern less scores is nothing."""
        pattern = self.weft[f"pattern.{layer}"]
        shown = pattern > 0
        rest = torch.where(shown, pattern.clamp_min(1e-30).log() - value, 0.0)
        mean = rest.sum(-1, keepdim=True) / shown.sum(-1, keepdim=True)
        return float(torch.where(shown, rest - mean, 0.0).abs().max())

    def _q_rot(self, value: torch.Tensor, layer: int) -> float:
        return self._scored(value, self.weft[f"k_rot.{layer}"], layer)

    def _k_rot(self, value: torch.Tensor, layer: int) -> float:
        return self._scored(self.weft[f"q_rot.{layer}"], value, layer)

    def _scored(self, q: torch.Tensor, k: torch.Tensor, layer: int) -> float:
        """Scores are one number times q_rot k_rotᵀ (below a cap, and with a bias by the key's position where there is one)."""
        scores = self.weft[f"scores.{layer}"]
        products = torch.einsum("bqhd,bkhd->bhqk", q, k.repeat_interleave(q.shape[2] // k.shape[2], dim=2))
        cap = getattr(self.config, "attn_logit_softcapping", None)
        shown = scores.isfinite() & (scores > -1e30)
        shown = shown & (scores.abs() < 0.8 * cap) if cap else shown  # nearer to it, float32 says too little
        wanted = (torch.atanh(scores.double() / cap) * cap if cap else scores.double())[shown]
        columns = [products.double()[shown]]
        for head in range(scores.shape[1]):  # a slope a head
            places = torch.arange(scores.shape[-1], dtype=torch.float64).expand(scores.shape).clone()
            places[:, [other for other in range(scores.shape[1]) if other != head]] = 0
            columns.append(places[shown])
        matrix = torch.stack(columns, 1)
        fit = matrix @ torch.linalg.lstsq(matrix, wanted[:, None], driver="gelsd").solution
        return apart(fit[:, 0], wanted)

    def _q(self, value: torch.Tensor, layer: int) -> float:
        return self._unturned("q", value, layer)

    def _k(self, value: torch.Tensor, layer: int) -> float:
        return self._unturned("k", value, layer)

    def _unturned(self, site: str, value: torch.Tensor, layer: int) -> float:
        """At position 0 nothing is turned, though a head's entries may be put in another order. Where a norm comes after
        rotary, it is the projection."""
        if self.config.model_type in NORMED_AFTER:
            return apart(value, self.gave[self._inner(layer, ATTENTION, QUERIES if site == "q" else KEYS)])
        return apart(value[:, 0].sort(-1).values, self.weft[f"{site}_rot.{layer}"][:, 0].sort(-1).values)

    def _head_out(self, value: torch.Tensor, layer: int) -> float:
        """The heads' shares add up to the output projection's result, less its bias, times what the sublayer is."""
        path = self._inner(layer, ATTENTION, OUT)
        whole = self.gave[path] - (bias if (bias := self.module.get_submodule(path).bias) is not None else 0)
        total = value.sum(-2).flatten()
        times = float(total @ whole.flatten() / (whole.flatten() @ whole.flatten()))
        return apart(total, times * whole.flatten())

    # -- neurons and experts ---

    def _router_logits(self, value: torch.Tensor, layer: int) -> float:
        """The router's weights times what it is given."""
        router, given = self._part(layer, ("router.layer", *ROUTER))
        bias = getattr(router, "bias", None)
        return apart(value, torch.nn.functional.linear(given.flatten(0, -2), router.weight, bias))

    def _expert_out(self, value: torch.Tensor, layer: int) -> float:
        """What all experts add is what they give together, times what the sublayer is."""
        path = self._inner(layer, MLP, ("experts",))
        whole, total = self.gave[path].flatten(), value.sum(-2).flatten()
        return apart(total, float(total @ whole / (whole @ whole)) * whole)

    def _part(self, layer: int, names: tuple[str, ...]) -> tuple[torch.nn.Module, torch.Tensor]:
        path = self._inner(layer, MLP, names)
        return self.module.get_submodule(path), self.given[path]

    def _mlp_pre(self, value: torch.Tensor, layer: int) -> float:
        return apart(value, self.given[self._inner(layer, MLP, ACTIVATION)])

    def _mlp_post(self, value: torch.Tensor, layer: int) -> float:
        path = self._inner(layer, MLP, DOWN)
        return apart(self.module.get_submodule(path)(value), self.gave[path])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry; infinite for other shapes."""
    if one.numel() != other.numel():
        return float("inf")
    one, other = one.reshape(-1).double(), other.reshape(-1).double()
    return float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))


def differ(key: str, one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two engines' values of a site are from each other; what a mask hides is nobody's value."""
    if not key.startswith("scores") or one.shape != other.shape:
        return apart(one, other)
    shown = other.isfinite() & (other > -1e30)
    hidden = one[~shown]
    if bool((hidden > -1e3).any()):
        return float("inf")
    return apart(one[shown], other[shown])
