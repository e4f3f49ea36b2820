"""The equations of DESIGN §3 for a decoder of the zoo, written out from its facts and its weights by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from family_zoo import ROWS, Kind, loaded

from weft.ir.nodes import Site
from weft.models import Loaded, tapped

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
POS = IDS.shape[1]


@dataclass
class Seen:
    """All sites of one pass, as they were when they passed, and the very tensors, as they are after it."""

    kind: Kind
    loaded: Loaded
    values: dict[Site, torch.Tensor] = field(default_factory=dict)
    tensors: dict[Site, torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, key: tuple[str, int] | str) -> torch.Tensor:
        return self.values[Site(*key) if isinstance(key, tuple) else Site(key)]

    def note(self, site: Site, value: torch.Tensor) -> None:
        self.tensors[site], self.values[site] = value, value.clone()

    def raw(self, layer: int, path: str, side: str = "output") -> torch.Tensor:
        """What the module at that path of the layer gives, the first tensor of it."""
        whole = f"{self.loaded.family.layers}.{layer}.{path}"
        return next(
            value for site, value in self.values.items() if site.path == whole and site.name == f"module.{side}"
        )

    def param(self, name: str, default: float = 0.0) -> torch.Tensor | float:
        return self.loaded.param(name) if name in self.loaded.card.params else default

    @property
    def config(self):
        return self.loaded.module.config


@lru_cache(maxsize=2)
def seen(name: str) -> Seen:
    """Every site of a model of that kind in float64."""
    model = loaded(name)
    found = Seen(ROWS[name], model)
    taps = {spec.site: lambda value, site=spec.site: found.note(site, value) for spec in model.card.sites}
    with torch.no_grad(), tapped(model, taps):
        model.forward({"tokens": IDS})
    return found


def normed(s: Seen, layer: int | None, path: str, x: torch.Tensor, last: int = 1) -> torch.Tensor:
    """A norm over the last axis (or the `last` two), as the family has it; `path` within the layer, if there is one."""
    whole = path if layer is None else f"{s.loaded.family.layers}.{layer}.{path}"
    gain = s.param(f"param({whole}.weight)", 1.0) + (1.0 if s.kind.norm.endswith("+1") else 0.0)
    eps = getattr(s.config, s.kind.eps, 1e-5) if s.kind.eps else 1e-5
    axes = tuple(range(-last, 0))
    if s.kind.norm.startswith("layer"):
        x = x - x.mean(axes, keepdim=True)
    return x * torch.rsqrt(x.pow(2).mean(axes, keepdim=True) + eps) * gain + s.param(f"param({whole}.bias)")


def before(s: Seen, layer: int) -> torch.Tensor:
    return s["resid_post", layer - 1] if layer else s["embed"]


def read_by_attention(s: Seen, layer: int) -> torch.Tensor:
    family = s.loaded.family
    return normed(s, layer, family.norm1, before(s, layer)) if family.norm1 else before(s, layer)


def read_by_mlp(s: Seen, layer: int) -> torch.Tensor:
    family = s.loaded.family
    if s.kind.parallel:
        return normed(s, layer, family.norm2 or family.norm1, before(s, layer))
    return normed(s, layer, family.norm2, s["resid_mid", layer]) if family.norm2 else s["resid_mid", layer]


def projected(s: Seen, layer: int, name: str, x: torch.Tensor) -> torch.Tensor:
    """W_Q x + b and the like: [batch, pos, head, d_head]."""
    letter = name.upper()
    return torch.einsum("bpm,hmd->bphd", x, s.loaded.param(f"W_{letter}[{layer}]")) + s.param(f"b_{letter}[{layer}]")


def query(s: Seen, layer: int, name: str) -> torch.Tensor:
    """q, k or v."""
    bare = projected(s, layer, name, read_by_attention(s, layer))
    if not s.kind.qk or name == "v":
        return bare
    path = {"q": s.loaded.family.q_norm, "k": s.loaded.family.k_norm}[name]
    if s.kind.qk == "flat":
        return normed(s, layer, path, bare.flatten(2)).unflatten(-1, bare.shape[2:])
    if s.kind.qk == "each":
        heads = [normed(s, layer, f"{path}.norms.{head}", bare[:, :, head]) for head in range(bare.shape[2])]
        return torch.stack(heads, 2)
    return normed(s, layer, path, bare)


def turned(s: Seen, layer: int, name: str, x: torch.Tensor, how: str = "") -> torch.Tensor:
    """q or k after rotary, and what comes after that."""
    if s.kind.rotary and layer not in s.kind.still:
        theta = s.kind.theta[layer] if s.kind.theta else 10000.0
        x = rotated(x, theta, s.kind.turned or x.shape[-1], how or s.kind.rotary)
    if s.kind.after_rotary == "norm":
        path = {"q": "query_layernorm", "k": "key_layernorm"}[name]
        return normed(s, layer, f"self_attn.{path}", x)
    if s.kind.after_rotary == "bare norm":
        return normed(s, layer, "no gain", x)
    if s.kind.after_rotary == "llama 4" and name == "q":
        return x * (1 + 0.5 * torch.log(1 + torch.arange(POS) // 3))[:, None, None]
    return x


def rotated(x: torch.Tensor, theta: float, width: int, how: str) -> torch.Tensor:
    angle = torch.arange(POS)[:, None] / theta ** (torch.arange(0, width, 2) / width)  # pos, width / 2
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    sin = -sin if how.endswith("back") else sin
    turn, rest = x[..., :width], x[..., width:]
    if how.startswith("half"):
        one, two = turn.chunk(2, -1)
        return torch.cat([one * cos - two * sin, two * cos + one * sin, rest], -1)
    one, two = turn[..., 0::2], turn[..., 1::2]
    return torch.cat([torch.stack([one * cos - two * sin, two * cos + one * sin], -1).flatten(-2), rest], -1)


def per_query_head(s: Seen, kv: torch.Tensor) -> torch.Tensor:
    return kv.repeat_interleave(s.loaded.sizes["n_heads"] // kv.shape[2], dim=2)


def hidden(s: Seen, layer: int) -> torch.Tensor:
    """Which keys a query does not see: [query, key]."""
    later = torch.ones(POS, POS, dtype=torch.bool).triu(1)
    return later | torch.ones(POS, POS, dtype=torch.bool).tril(-4) if layer in s.kind.windows else later


def scores(s: Seen, layer: int) -> torch.Tensor:
    scale = s.kind.scale or s.loaded.sizes["d_head"] ** -0.5
    k = per_query_head(s, s["k_rot", layer])
    found = torch.einsum("bqhd,bkhd->bhqk", s["q_rot", layer], k) * scale
    if s.kind.softcap:
        found = torch.tanh(found / s.kind.softcap) * s.kind.softcap
    if s.kind.slopes:
        found = found + torch.tensor(s.kind.slopes, dtype=found.dtype)[:, None, None] * torch.arange(POS)
    return found.masked_fill(hidden(s, layer), float("-inf"))


def pattern(s: Seen, layer: int) -> torch.Tensor:
    found = s["scores", layer].exp()
    total = found.sum(-1, keepdim=True)
    if s.kind.sinks:
        total = total + s.loaded.param(f"param({s.loaded.family.layers}.{layer}.self_attn.sinks)").exp()[:, None, None]
    return found / total


def attention_gives(s: Seen, layer: int) -> torch.Tensor:
    """z through W_O, all heads together, before what comes after."""
    z = s["z", layer]
    z = normed(s, layer, s.kind.before_o, z.flatten(2)).unflatten(-1, z.shape[2:]) if s.kind.before_o else z
    return torch.einsum("bphd,hdm->bpm", z, s.loaded.param(f"W_O[{layer}]")) + s.param(f"b_O[{layer}]")


def added(s: Seen, layer: int, which: int, given: torch.Tensor) -> torch.Tensor:
    """What is added to the stream of what a sublayer gives: normed and multiplied where the family does so."""
    path = s.kind.post[which]
    return (normed(s, layer, path, given) if path else given) * s.kind.times


def neurons(s: Seen, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Neurons before and after the activation."""
    x, at = read_by_mlp(s, layer), f"[{layer}]"
    into = x @ s.loaded.param(f"W_in{at}") + s.param(f"b_in{at}")
    pre = x @ s.loaded.param(f"W_gate{at}") + s.param(f"b_gate{at}") if s.kind.gated else into
    post = s.kind.act(pre) * into if s.kind.gated else s.kind.act(pre)
    return pre, normed(s, layer, s.kind.before_down, post) if s.kind.before_down else post


def mlp_gives(s: Seen, layer: int) -> torch.Tensor:
    return s["mlp_post", layer] @ s.loaded.param(f"W_out[{layer}]") + s.param(f"b_out[{layer}]")


def logits(s: Seen) -> torch.Tensor:
    found = (s["final_norm"] @ s.loaded.param("W_U") + s.param("b_U")) * s.kind.logits
    return torch.tanh(found / s.kind.cap) * s.kind.cap if s.kind.cap else found
