"""A model's card, from forwards on the meta device: shapes and order without a weight being copied or computed with.

A decoder is run at four sizes and once with a cache; each length of each site is solved for as
`const + batch·B + pos·P + key·K + batch_pos·B·P`. A raw module is run at exactly the sizes asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from weft.errors import ModelError
from weft.ir.card import BATCH, KEY, POS, Card, Dim, PartSpec, SiteSpec
from weft.ir.nodes import Site
from weft.ir.types import TensorType
from weft.models import placement, weights
from weft.models.absent import reasons
from weft.models.alike import observed, signature
from weft.models.caches import new_cache
from weft.models.families import Family
from weft.models.hooks import installed, lock_of
from weft.models.meta import AllOnes
from weft.models.shapes import SHAPELY

if TYPE_CHECKING:
    from weft.models.loaded import Loaded

OUTPUT = "output"
"""The site of what a raw module as a whole gives."""


class Size(NamedTuple):
    batch: int
    pos: int
    key: int


SIZES = (Size(2, 5, 5), Size(3, 5, 5), Size(2, 7, 7), Size(3, 7, 7), Size(2, 5, 11))
"""Primes, so that no product or sum of two is a third; the last runs with 6 positions in a cache."""
Seen = dict[Site, TensorType]


def build(loaded: Loaded) -> Card:
    """The card of a model; for a raw module without sites, which depend on its inputs."""
    twin = meta_twin(loaded.module)
    if loaded.kind != "decoder":
        return _finish(loaded, twin, ())
    runs = [partial(_observe_decoder, loaded, twin, size) for size in (SIZES[:4] if loaded.plain else SIZES)]
    layers = loaded.family.layers if loaded.family and not loaded.plain else ""
    specs = [_solve(site, kinds, loaded.sizes) for site, kinds in observed(twin, layers, runs).items()]
    known = tuple(spec for spec in specs if spec is not None)
    if loaded.family:
        known = tuple(spec for spec in known if spec.site.path or _laid_out(spec, loaded.sizes))
    return _finish(loaded, twin, _with_insides(known, loaded) if loaded.family else known)


def build_for(
    loaded: Loaded, inputs: dict[str, TensorType], values: dict[str, torch.Tensor] | None = None
) -> tuple[Card, bool]:
    """The card of a raw module for inputs of these types, and whether it looks at what they are: it is run on them then."""
    twin = meta_twin(loaded.module)
    try:
        with torch.device("meta"), torch.no_grad():
            given = {name: torch.empty(kind.shape, dtype=dtype_of(kind.dtype)) for name, kind in inputs.items()}
            seen = _observe(loaded, twin, lambda: twin(**given))
    except Exception as error:
        if values is not None and "meta" in str(error):
            return replace(loaded.card, sites=_as_specs(_observe_values(loaded, values))), True
        wanted = ", ".join(f"{name}: {kind}" for name, kind in inputs.items())
        raise ModelError(f"{loaded.name} cannot be run on ({wanted}): {type(error).__name__}: {error}") from error
    return replace(loaded.card, sites=_as_specs(seen)), False


def _observe_values(loaded: Loaded, values: dict[str, torch.Tensor]) -> Seen:
    """What passes when the module itself is run on these inputs."""
    given = {name: value.to(loaded.device) for name, value in values.items()}
    try:
        # No function modes either: what the module makes meanwhile is no part of the experiment that is being written.
        with torch._C.DisableTorchFunction(), torch.no_grad(), lock_of(loaded.module):
            return _observe(loaded, loaded.module, lambda: loaded.module(**given))
    except Exception as error:
        wanted = ", ".join(values)
        raise ModelError(f"{loaded.name} cannot be run on ({wanted}): {type(error).__name__}: {error}") from error


def _as_specs(seen: Seen) -> tuple[SiteSpec, ...]:
    return tuple(
        SiteSpec(site, _raw_axes(kind), tuple(map(Dim, kind.shape)), kind.dtype) for site, kind in seen.items()
    )


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    return getattr(torch, name)


def part_path(family: Family | None, part: str) -> str:
    """The module that a part is: "unembed", "final_norm" or "module(path)"."""
    if family and part in ("unembed", "final_norm"):
        return getattr(family, part)
    return part.removeprefix("module(").removesuffix(")")


def meta_twin(module: nn.Module) -> nn.Module:
    """A copy of the module whose tensors are all on the meta device; no weight is copied."""
    shapes_alone = all(each.is_meta for each in module.parameters()) and not placement.placed(module)
    if shapes_alone and getattr(getattr(module, "config", None), "_experts_implementation", None) in (None, SHAPELY):
        return module  # nothing in it to be copied, and nothing to be changed
    memo: dict[int, Any] = {}
    for each in module.modules():
        plain = [value for value in vars(each).values() if isinstance(value, torch.Tensor)]
        for tensor in (*each._parameters.values(), *each._buffers.values(), *plain):
            if tensor is not None and id(tensor) not in memo:
                memo[id(tensor)] = _on_meta(tensor)
    placement.bare(module, memo)
    twin = copy.deepcopy(module, memo)
    placement.unhooked(twin)
    config: Any = getattr(twin, "config", None)
    if getattr(config, "_experts_implementation", None):
        config._experts_implementation = SHAPELY
    return twin


def _on_meta(tensor: torch.Tensor) -> torch.Tensor:
    moved = torch.empty_like(tensor, device="meta")
    return nn.Parameter(moved, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved


def _observe_decoder(loaded: Loaded, twin: nn.Module, size: Size, wanted: set[Site] | None = None) -> Seen:
    with torch.device("meta"), torch.no_grad(), AllOnes():
        ids = torch.zeros(size.batch, size.pos, dtype=torch.long)
        if loaded.plain:
            return _observe(loaded, twin, lambda: twin(ids), wanted)
        # Always with a cache, if an empty one: without, transformers looks at positions that have no data here.
        cache = new_cache(twin.config)
        if size.key > size.pos:
            before = torch.zeros(size.batch, size.key - size.pos, dtype=torch.long)
            twin(input_ids=before, past_key_values=cache, use_cache=True)
        return _observe(loaded, twin, lambda: twin(input_ids=ids, past_key_values=cache, use_cache=True), wanted)


def _observe(loaded: Loaded, twin: nn.Module, run: Callable[[], Any], wanted: set[Site] | None = None) -> Seen:
    """Every site that a forward passes, in order, with its type; standard ones that it passes twice are none."""
    seen: Seen = {}
    again: set[Site] = set()

    def note(site: Site, value: torch.Tensor) -> None:
        if site in seen:
            again.add(site)
        seen[site] = TensorType(dtype_name(value.dtype), tuple(value.shape))

    def raw(path: str, name: str, call: int, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for item, value in tensors.items():
            if ".experts." not in path:  # what passes inside experts hangs on the routing, and on how they are computed
                note(Site(name, None, path, call, item), value)
        return {}

    with installed(twin, loaded.family, loaded.sizes, wanted, note, raw, whole=_whole(loaded)):
        run()
    return {site: kind for site, kind in seen.items() if site not in again}


def _whole(loaded: Loaded) -> str:
    return "logits" if loaded.kind == "decoder" else OUTPUT


def _solve(site: Site, kinds: list[TensorType], sizes: dict[str, int]) -> SiteSpec | None:
    """The lengths of a site as functions of the sizes; None where they are no such functions."""
    if len({len(kind.shape) for kind in kinds}) != 1 or len(kinds) not in (4, 5):
        return None
    dims = tuple(_dim(list(lengths)) for lengths in zip(*(kind.shape for kind in kinds), strict=True))
    solved = tuple(dim for dim in dims if dim is not None)
    if len(solved) != len(dims):
        return None
    return SiteSpec(site, _axes(site, solved, sizes), solved, kinds[0].dtype)


def _dim(lengths: list[int]) -> Dim | None:
    """Solve for the coefficients; the sizes are such that each is one difference of lengths."""
    first, more_rows, longer, both = lengths[:4]
    key = (lengths[4] - first) / 6 if len(lengths) == 5 else 0.0
    batch_pos = ((both - longer) - (more_rows - first)) / 2
    batch = more_rows - first - 5 * batch_pos
    pos = (longer - first - 4 * batch_pos) / 2 - key
    const = first - 2 * batch - 5 * pos - 5 * key - 10 * batch_pos
    found = (const, batch, pos, key, batch_pos)
    return Dim(*map(int, found)) if all(each == int(each) >= 0 for each in found) else None


_LAYOUTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("q", "q_rot", "z"), ("batch", "pos", "head", "d_head")),
    **dict.fromkeys(("k", "v", "k_rot"), ("batch", "pos", "kv_head", "d_head")),
    **dict.fromkeys(("scores", "pattern"), ("batch", "head", "query_pos", "key_pos")),
    **dict.fromkeys(("mlp_pre", "mlp_post"), ("batch", "pos", "d_mlp")),
    "head_out": ("batch", "pos", "head", "d_model"),
    **dict.fromkeys(("router_logits", "expert_weights"), ("batch", "pos", "expert")),
    "expert_out": ("batch", "pos", "expert", "d_model"),
    "logits": ("batch", "pos", "d_vocab"),
}
_STREAM = ("batch", "pos", "d_model")
_LENGTHS = {"batch": BATCH, "pos": POS, "query_pos": POS, "key_pos": KEY}
_SIZE_OF_AXIS = {"head": "n_heads", "kv_head": "n_kv_heads", "expert": "n_experts"}


def _axes(site: Site, dims: tuple[Dim, ...], sizes: dict[str, int]) -> tuple[str, ...]:
    if not site.path:
        return _layout(site.name, sizes)
    axes = [{BATCH: "batch", POS: "pos"}.get(dim, f"dim_{index}") for index, dim in enumerate(dims)]
    last = {Dim(sizes[name]): name for name in ("d_vocab", "d_mlp", "d_model") if name in sizes}
    if dims and dims[-1] in last:
        axes[-1] = last[dims[-1]]
    return tuple(axes if len(set(axes)) == len(axes) else [f"dim_{index}" for index in range(len(dims))])


def _layout(name: str, sizes: dict[str, int]) -> tuple[str, ...]:
    """A standard site's axes; where values are not as wide as keys, v and z have a length of their own, d_v."""
    axes = _LAYOUTS.get(name, _STREAM)
    return (*axes[:-1], "d_v") if name in ("v", "z") and "d_v" in sizes else axes


def _laid_out(spec: SiteSpec, sizes: dict[str, int]) -> bool:
    """Whether a standard site has the lengths that its axes say: a stream [pos, batch, d_model] is none of ours."""
    lengths = [_LENGTHS.get(axis) or Dim(sizes.get(_SIZE_OF_AXIS.get(axis, axis), -1)) for axis in spec.axes]
    return list(spec.dims) == lengths


def _raw_axes(kind: TensorType) -> tuple[str, ...]:
    return tuple(f"dim_{index}" for index in range(len(kind.shape)))


def _with_insides(specs: tuple[SiteSpec, ...], loaded: Loaded) -> tuple[SiteSpec, ...]:
    """q_rot, k_rot, scores and pattern of each layer put in, where attention's own function has them: right before its
    z, or, where attention is weft's own and has modules of its own (BLOOM's dropout), right after q, k and v."""
    family = loaded.family
    own = family is not None and bool(family.supplied)
    if family is not None and "z" in family.inside:
        return _before_output(specs, loaded, family)
    last = {spec.site.layer: at for at, spec in enumerate(specs) if spec.site.name in ("q", "k", "v")}
    out: list[SiteSpec] = []
    for at, spec in enumerate(specs):
        layer = spec.site.layer
        if spec.site.name == "z" and not own:
            out += _insides(layer, spec.dtype, loaded)
        out.append(spec)
        if own and layer is not None and last.get(layer) == at:
            out += _insides(layer, spec.dtype, loaded)
    return tuple(out)


def _before_output(specs: tuple[SiteSpec, ...], loaded: Loaded, family: Family) -> tuple[SiteSpec, ...]:
    """The same where z too is known to attention's own function alone: before what makes it ready for the output."""
    layers = {f"{family.layers}.{layer}.{family.o}": layer for layer in range(loaded.sizes["n_layers"])}
    out: list[SiteSpec] = []
    for spec in specs:
        if spec.site.path in layers and spec.site.name == "module.input" and not spec.site.item:
            out += _insides(layers[spec.site.path], spec.dtype, loaded)
        out.append(spec)
    return tuple(out)


def _insides(layer: int | None, dtype: str, loaded: Loaded) -> list[SiteSpec]:
    found: list[SiteSpec] = []
    lacks = dict(loaded.family.lacks) if loaded.family else {}
    inside = loaded.family.inside if loaded.family else ()
    order = ("q_rot", "k_rot", *(name for name in inside if name == "v"), "scores", "pattern")
    for name in (name for name in (*order, *(name for name in inside if name == "z")) if name not in lacks):
        axes = _layout(name, loaded.sizes)
        dims = tuple(_LENGTHS.get(axis) or Dim(loaded.sizes[_SIZE_OF_AXIS.get(axis, axis)]) for axis in axes)
        found.append(SiteSpec(Site(name, layer), axes, dims, dtype))
    return found


def _finish(loaded: Loaded, twin: nn.Module, sites: tuple[SiteSpec, ...]) -> Card:
    names = weights.names(twin, loaded.family, loaded.sizes)
    stored = {f"param({path})": each for path, each in twin.named_parameters(remove_duplicate=False)}
    found = {
        name: stored[name] if name in stored else weights.weight(twin, loaded.family, loaded.sizes, name)
        for name in names
    }
    config = getattr(loaded.module, "config", None)
    return Card(
        name=loaded.name,
        kind=loaded.kind,
        family=loaded.family.name if loaded.family else "",
        dtype=dtype_name(next((each.dtype for each in loaded.module.parameters()), torch.float32)),
        sizes=dict(loaded.sizes),
        sites=sites,
        params={name: TensorType(dtype_name(each.dtype), tuple(each.shape)) for name, each in found.items()},
        parts=_parts(loaded.family, twin),
        absent=reasons(loaded, [spec.site for spec in sites]),
        max_positions=int(getattr(config, "max_position_embeddings", 0) or 0) or _learned_positions(loaded),
        config=_config_data(config),
        tokenizer=dict(loaded.tokenizer),
    )


def _learned_positions(loaded: Loaded) -> int:
    """How many positions a user's own decoder has embeddings for; 0 where nothing says so."""
    path = loaded.family.positions if loaded.plain and loaded.family else ""
    weight: Any = loaded.module.get_submodule(path).weight if path else None
    return 0 if weight is None else int(weight.shape[0]) - (loaded.family.positions_from if loaded.family else 0)


_KEPT = (
    "model_type", "architectures", "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size",
    "max_position_embeddings", "tie_word_embeddings", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_size", "head_dim", "intermediate_size", "rope_theta",
)  # fmt: skip


def _config_data(config: Any) -> dict[str, object]:
    """What of a configuration is plain data and says something to a user."""
    values = {name: getattr(config, name, None) for name in _KEPT} if config is not None else {}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float | str | list)}


def _parts(family: Family | None, twin: nn.Module) -> tuple[PartSpec, ...]:
    """Modules that map the last axis alone, as a run on the meta device gives their widths."""
    paths = {path: f"module({path})" for path, each in twin.named_modules() if path and _last_axis_only(each)}
    named = {"unembed": family.unembed, "final_norm": family.final_norm} if family else {}
    layers = [path for path, _ in twin.named_modules() if family and path.endswith(f".{family.mlp}")]
    wanted = [*named.items(), *((f"module({path})", path) for path in [*layers, *paths])]
    found: list[PartSpec] = []
    known: dict[Any, PartSpec | None] = {}
    for name, path in dict(wanted).items():
        module = twin.get_submodule(path)
        if (built := signature(module)) not in known:
            known[built] = _part(name, module) or _bare_norm(name, module, twin, family)
        part = known[built]
        if part is not None:
            found.append(replace(part, name=name))
    return tuple(found)


def _last_axis_only(module: nn.Module) -> bool:
    """Known by type: that a module mixes no other axis cannot be seen from shapes."""
    if isinstance(module, nn.Sequential):
        return len(module) > 0 and all(_last_axis_only(each) for each in module)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return len(module.normalized_shape) == 1
    name = type(module).__name__
    return isinstance(module, nn.Linear) or name == "Conv1D" or name.endswith("RMSNorm")


def _bare_norm(name: str, module: nn.Module, twin: nn.Module, family: Family | None) -> PartSpec | None:
    """A last norm without a gain (OLMo): as wide as the unembedding takes."""
    if name != "final_norm" or family is None or next(module.parameters(), None) is not None:
        return None
    weight: Any = twin.get_submodule(family.unembed).weight
    return PartSpec(name, int(weight.shape[-1]), int(weight.shape[-1]), dtype_name(weight.dtype))


def _part(name: str, module: nn.Module) -> PartSpec | None:
    first = next((each for each in module.parameters()), None)
    if first is None:
        return None
    leaf = next(each for each in module.modules() if getattr(each, "weight", None) is not None)
    weight: Any = leaf.weight
    d_in = int(weight.shape[0 if type(leaf).__name__ == "Conv1D" else -1])
    try:
        with torch.device("meta"), torch.no_grad():
            out = module(torch.empty(2, d_in, dtype=first.dtype))
    except Exception:
        return None
    if not isinstance(out, torch.Tensor) or out.dim() != 2 or out.shape[0] != 2:
        return None
    return PartSpec(name, d_in, int(out.shape[-1]), dtype_name(first.dtype))
