"""Look at any decoder and propose its table.

proposal = weft.models.inspect(model)
print(proposal)                            # a call of `register` to paste, and which equations hold
weft.models.register("mine", MyDecoder, n_heads=proposal.n_heads, **proposal.facts)
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from torch import nn

from weft.errors import ModelError
from weft.models import registry
from weft.models.family import Family
from weft.models.identities import identities
from weft.models.inspecting import whole
from weft.models.inspecting.heads import Heads
from weft.models.inspecting.layer import Layer
from weft.models.inspecting.neurons import neurons
from weft.models.inspecting.proposal import Proposal
from weft.models.inspecting.watch import Watch, same

Facts = dict[str, Any]


def inspect(model: Any) -> Proposal:
    """Propose the table of facts of a decoder: an nn.Module that takes token ids and gives logits, or a loaded model.

    The model is run on a few random tokens, on a copy whose weights are drawn anew (a new model's gains of 1 and biases of 0
    would hide what they do). Modules are told apart by numbers and not by names: by what sums to the stream, and by
    what moves what when it is changed. ModelError says what is missing where it is no decoder of attention and MLP.
    """
    module = _module(model)
    watch = Watch(module)
    seen = watch.first()
    whole.causal(watch, seen)
    stack = whole.layers(watch, seen)
    layer = Layer(watch, seen, stack)
    last = seen.gave(f"{stack}.{len(list(watch.modules[stack].children())) - 1}")
    assert last is not None
    notes: list[str] = []
    parts, heads = _layer(layer, notes)
    begin = whole.start(watch, seen, stack, layer.pre, notes)
    facts: Facts = {"layers": stack, **parts, **begin, **whole.end(watch, seen, stack, last)}
    facts["rms"] = not whole.subtracts_mean(watch, facts["final_norm"], last)
    known = {each.name for each in fields(Family)}
    family = Family(
        name=_name(module), model_types=(), **{name: value for name, value in facts.items() if name in known}
    )
    n_heads = _attribute(module, layer, family, heads)
    if not watch.anew:
        notes.append("the model is large, so it was looked at with its own weights")
    loaded = registry.assemble(watch.module, family, heads)
    return Proposal(type(module).__name__, n_heads, family, identities(loaded), tuple(notes))


def _module(model: Any) -> nn.Module:
    """The module itself, of a loaded model too."""
    loaded = getattr(getattr(model, "backend", None), "loaded", model)
    module = loaded if isinstance(loaded, nn.Module) else getattr(loaded, "module", None)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"inspect looks at a torch.nn.Module, or a model loaded from one, not at {type(model).__name__}"
        )
    return module


def _layer(layer: Layer, notes: list[str]) -> tuple[Facts, int]:
    """The facts of a layer, and the number of heads."""
    attention, mlp, times = layer.sublayers()
    o, attn_norm = layer.projection(attention)
    if not o:
        raise ModelError(f"no projection gives what attention adds ({attention[0]}), nor what a norm of it takes")
    out, mlp_norm = layer.projection(mlp)
    heads = Heads(layer, o, {out} | _within(layer, mlp, o))
    facts, count = heads.facts()
    readers = [f"{layer.path}.{facts[name]}" for name in ("qkv", "q", "k", "v") if name in facts]
    facts["o"] = layer.short(o)
    attn = layer.common([*readers, o])
    facts["attn"] = attn or facts["o"]
    facts["attn_adds"] = _adds(layer, attention, attn, o, attn_norm)
    facts["parallel"] = layer.parallel(attention, mlp)
    facts["conv1d"] = bool(layer.linears[o])
    facts["norm1"] = _read_through(layer, layer.seen.took(readers[0]), layer.pre, "attention", notes)
    added = layer.gave(attention[0])
    assert added is not None
    stream = layer.pre if facts["parallel"] else layer.pre + times * added
    if out:
        found, reads = neurons(layer, out, {o, *readers})
        facts |= found
        own = [f"{layer.path}.{found[name]}" for name in ("gate", "gate_up", "mlp_in", "mlp_out") if name in found]
        facts["mlp"] = layer.common(own)
        facts["mlp_adds"] = _adds(layer, mlp, facts["mlp"], out, mlp_norm)
        value = layer.seen.took(own[0])
        facts["flat"] = value is not None and value.dim() == 2
    else:
        facts |= _experts(layer, mlp, notes)
        reads = layer.seen.took(f"{layer.path}.{facts['mlp']}")
    norm2 = _read_through(layer, reads, stream, "the MLP", notes)
    facts["norm2"] = "" if facts["parallel"] and norm2 == facts["norm1"] else norm2
    return {**facts, "times": times}, count


def _within(layer: Layer, group: list[str], o: str) -> set[str]:
    """The projections inside the modules that give what the MLP adds."""
    outer = [path for path in group if not o.startswith(f"{path}.")]
    return {path for path in layer.linears for each in outer if path.startswith(f"{each}.")}


def _adds(layer: Layer, group: list[str], module: str, projection: str, norm: str) -> str:
    """Whose output is added, where it is not the module's own."""
    if module and f"{layer.path}.{module}" in group:
        return ""
    if not module and projection in group and layer.linears.get(projection) is not None:
        return "" if norm else layer.short(projection)
    return layer.short(norm or projection)


def _read_through(layer: Layer, reads: Any, stream: Any, who: str, notes: list[str]) -> str:
    found = layer.norm_of(reads, stream)
    if found is None:
        notes.append(f"what {who} reads is neither the stream nor what one module makes of it")
    return found or ""


def _experts(layer: Layer, group: list[str], notes: list[str]) -> Facts:
    """An MLP of which no one projection gives what is added: several experts."""
    notes.append("what the MLP adds comes of no one projection (several experts?); there are no mlp_pre and mlp_post")
    outer = min(group, key=lambda path: path.count("."))
    into = layer.took(outer)
    inner = [path for path in layer.inside if into is not None and layer.gave(path) is not None]
    behind = [
        path
        for path in inner
        if path not in group and list(layer.watch.modules[path].children()) and same(layer.gave(path), into)
    ]
    if not list(layer.watch.modules[outer].children()) and behind:
        return {"mlp": layer.short(behind[-1]), "mlp_adds": layer.short(outer)}
    return {"mlp": layer.short(outer)}


def _attribute(module: nn.Module, layer: Layer, family: Family, heads: int) -> int | str:
    """The model's attribute that has the number of heads, else the number."""
    config = getattr(module, "config", None)
    for name in ("num_attention_heads", "n_head", "n_heads", "num_heads"):
        if getattr(config, name, None) == heads:
            return f"config.{name}"
    for path in (f"{layer.path}.{family.attn}", layer.path, ""):
        part = module.get_submodule(path)
        for name, value in vars(part).items():
            if (
                isinstance(value, int)
                and not isinstance(value, bool)
                and value == heads
                and "head" in name
                and "kv" not in name
            ):
                return f"{path}.{name}".lstrip(".")
    return heads


def _name(module: nn.Module) -> str:
    """A name for the family: the class's, as names are written."""
    kind = type(module).__name__
    for ending in ("ForCausalLM", "LMHeadModel"):
        kind = kind.removesuffix(ending)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower() + "_own"


__all__ = ["inspect"]
