"""Families of a user's own: a table of facts for a class of models, checked by the equations on the first model loaded.

weft.models.register(
    "mine", MyDecoder, n_heads="heads",
    embed="tok", layers="blocks", final_norm="norm", unembed="head",
    norm1="n1", attn="attn", q="attn.q", k="attn.k", v="attn.v", o="attn.o",
    norm2="n2", mlp="mlp", mlp_in="mlp.up", mlp_out="mlp.down",
)
model = weft.load(MyDecoder())
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from weft.errors import ExecutionError, ModelError
from weft.ir.nodes import Site
from weft.models.families import BY_MODEL_TYPE, FAMILIES, INSIDE_ATTENTION
from weft.models.family import Family, resolved
from weft.models.hooks import tapped
from weft.models.identities import failing, identities
from weft.models.loaded import Loaded
from weft.models.names import nearest

OWN_ATTENTION = "its attention is code of its own, not looked up in transformers' registry, so weft cannot look into it"
_MODEL_PATHS = ("embed", "layers", "final_norm", "unembed", "positions")
_LAYER_PATHS = (
    "norm1", "norm2", "attn", "attn_adds", "mlp", "mlp_adds", "mlp_in", "mlp_out", "gate", "gate_up", "qkv", "q", "k", "v",
    "q_norm", "k_norm", "o", "z",
)  # fmt: skip
_TABLES_OWN = frozenset(("name", "model_types"))


@dataclass(frozen=True)
class Registered:
    """A table, the classes or `model_type`s that it is for, and how many heads their models have."""

    family: Family
    classes: tuple[type, ...]
    n_heads: int | str


_REGISTERED: dict[str, Registered] = {}
_BUILT_IN = frozenset(FAMILIES)
_CHECKED: weakref.WeakKeyDictionary[type, Family] = weakref.WeakKeyDictionary()


def register(
    name: str, *classes: type[nn.Module], n_heads: int | str = "", model_types: Iterable[str] = (), **facts: Any
) -> Family:
    """Tell weft where a decoder of yours keeps its parts; `weft.load(model)` then gives it every site.

    `classes` are the modules' own classes, or `model_types` what their `config.model_type` says. `n_heads` is a number, or
    the attribute of the model that has it ("config.n_head"); every other size is read from the weights. `facts` are the
    columns of a family's table: paths of the whole model (embed, layers, final_norm, unembed), paths within a layer (attn,
    o, mlp, q, k, v or qkv, norm1, norm2, …) and switches (parallel, rms, conv1d, packing, …); `weft.models.inspect(model)`
    proposes them. The first model of the class that is loaded is held to the equations of the sites. Registering a name
    again replaces it. ModelError for a fact that is none, or one that is missing.
    """
    if name in _BUILT_IN:
        raise ModelError(f"{name!r} is a family that weft has already; register yours under another name")
    known = [each.name for each in fields(Family) if each.name not in _TABLES_OWN]
    for fact in facts:
        if fact not in known:
            raise ModelError(
                f"{fact!r} is no fact of a family's table{nearest(fact, known)}; there are {', '.join(known)}"
            )
    missing = [each.name for each in fields(Family) if each.default is MISSING and each.name not in facts]
    missing = [each for each in missing if each not in _TABLES_OWN]
    if missing:
        raise ModelError(
            f"the table of {name!r} must say {', '.join(missing)}; weft.models.inspect(model) proposes them"
        )
    types = tuple(model_types)
    if not classes and not types:
        raise ModelError(f"say which models are {name!r}: register({name!r}, TheirClass, …) or model_types=(…,)")
    taken = next((kind for kind in types if kind in BY_MODEL_TYPE and BY_MODEL_TYPE[kind].name in _BUILT_IN), None)
    if taken is not None:
        raise ModelError(f"weft has a table for model_type {taken!r} already ({BY_MODEL_TYPE[taken].name})")
    family = Family(name=name, model_types=types, **facts)
    if not (family.qkv or (family.q and family.k and family.v)):
        raise ModelError(f"the table of {name!r} must say q, k and v, or qkv where one projection gives all three")
    unregister(name)
    _REGISTERED[name] = Registered(family, classes, n_heads)
    FAMILIES[name] = family
    return family


def unregister(name: str) -> None:
    """Forget a family that was registered; nothing where there is none of that name."""
    if _REGISTERED.pop(name, None) is not None:
        del FAMILIES[name]
    for kind in [kind for kind, family in _CHECKED.items() if family.name == name]:
        del _CHECKED[kind]


def find(module: nn.Module) -> Registered | None:
    """The table that was registered for this model: by its class, else by its `model_type`."""
    kind = getattr(getattr(module, "config", None), "model_type", None)
    by_class = [each for each in _REGISTERED.values() if type(module) in each.classes]
    by_type = [each for each in _REGISTERED.values() if kind in each.family.model_types]
    return next(iter([*by_class, *by_type]), None)


def wrap(module: nn.Module, mine: Registered, **more: Any) -> Loaded:
    """The model with that table. ModelError where the table names what is not there, or where an equation fails."""
    loaded = assemble(module, mine.family, mine.n_heads, **more)
    assert loaded.family is not None
    if _CHECKED.get(type(module)) != loaded.family and next(module.parameters()).device.type != "meta":
        wrong = [str(each) for each in failing(identities(loaded))]
        if wrong:
            raise ModelError(
                f"the table of {mine.family.name!r} is wrong for {type(module).__name__}; these do not hold (the error as a "
                f"part of the largest value):\n  "
                + "\n  ".join(wrong)
                + "\nIs there a norm after a sublayer (attn_adds=, "
                "mlp_adds=), a multiplier (times=), one stream for both sublayers (parallel=True), another packing= of qkv? "
                "weft.models.inspect(model) proposes a table for which they hold"
            )
        _CHECKED[type(module)] = loaded.family
    return loaded


def assemble(module: nn.Module, table: Family, n_heads: int | str, **more: Any) -> Loaded:
    """The model with that table, its paths checked but not its equations."""
    config = getattr(module, "config", None)
    family = resolved(table, config)
    if family is None:
        raise ModelError(
            f"this {type(module).__name__}'s configuration is none that the table of {table.name!r} is for"
        )
    _check_paths(module, family)
    takes = inspect.signature(module.forward).parameters
    plain = config is None or not {"input_ids", "past_key_values"} <= set(takes)
    if plain:
        family = replace(family, lacks=(*family.lacks, *((name, OWN_ATTENTION) for name in INSIDE_ATTENTION)))
    sizes = _sizes(module, family, _heads(module, n_heads, table.name))
    more = {"name": type(module).__name__, **more}
    loaded = Loaded(module, kind="decoder", family=family, sizes=sizes, plain=plain, **more)
    if plain or _looked_into(loaded):
        return loaded
    family = replace(family, lacks=(*family.lacks, *((name, OWN_ATTENTION) for name in INSIDE_ATTENTION)))
    return Loaded(module, kind="decoder", family=family, sizes=sizes, **more)


def _looked_into(loaded: Loaded) -> bool:
    """Whether attention is looked up in transformers' registry, so that weft's own takes its place."""
    if not hasattr(loaded.module.config, "_attn_implementation") or loaded.device.type == "meta":
        return False
    try:
        with torch.no_grad(), tapped(loaded, {Site("pattern", 0): lambda value: None}):
            loaded.forward({"tokens": torch.zeros(1, 2, dtype=torch.long)})
    except ExecutionError:
        return False
    return True


def _check_paths(module: nn.Module, family: Family) -> None:
    kind = type(module).__name__
    _check(module, family, _MODEL_PATHS, f"{kind} has no module at that path")
    layers: Any = module.get_submodule(family.layers)
    if not isinstance(layers, nn.ModuleList | nn.Sequential) or len(layers) == 0:
        raise ModelError(f"layers={family.layers!r} is a {type(layers).__name__}, not a list of layers (nn.ModuleList)")
    _check(layers, family, _LAYER_PATHS, f"no layer of {kind} ({family.layers}.0, …) has a module at that path")


def _check(module: nn.Module, family: Family, facts: tuple[str, ...], what: str) -> None:
    """Each path that the table names is there: layers may differ, but some layer has it."""
    paths = [path for path, _ in module.named_modules() if path]
    if facts is _LAYER_PATHS:
        paths = list(dict.fromkeys(inner for path in paths if (inner := path.partition(".")[2])))
    for fact in facts:
        path = getattr(family, fact, "")
        if path and path not in paths:
            raise ModelError(
                f"the table of {family.name!r} says {fact}={path!r}, but {what}{nearest(path, paths)}; "
                f"it has {', '.join(paths[:8])}{' …' if len(paths) > 8 else ''}"
            )


def _heads(module: nn.Module, given: int | str, name: str) -> int:
    if isinstance(given, int):
        return given
    value: Any = module
    path = given or "config.num_attention_heads"
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step, None)
    if not isinstance(value, int) or value < 1:
        raise ModelError(
            f"how many heads has a model of family {name!r}? {path!r} is {value!r}; register it with n_heads=8, or with "
            'the attribute of the model that has it: n_heads="config.n_head"'
        )
    return value


def _sizes(module: nn.Module, family: Family, heads: int) -> dict[str, int]:
    """Every size from the weights."""
    layer: Any = module.get_submodule(family.layers)[0]  # type: ignore[index]

    def lengths(path: str) -> tuple[int, int]:
        """How wide what a projection takes is, and what it gives."""
        weight: Any = layer.get_submodule(path).weight
        return tuple(weight.shape if family.conv1d else weight.T.shape)  # type: ignore[return-value]

    width = lengths(family.o)[0]
    embed: Any = module.get_submodule(family.embed)
    unembed: Any = module.get_submodule(family.unembed)
    if width % heads:
        raise ModelError(
            f"{family.o} takes {width} numbers a token, which {heads} heads cannot share; n_heads= is wrong"
        )
    head = width // heads
    keys = (lengths(family.qkv)[1] - width) // 2 if family.qkv else lengths(family.k)[1]
    sizes = {
        "n_layers": len(module.get_submodule(family.layers)),  # type: ignore[arg-type]
        "n_heads": heads,
        "n_kv_heads": max(keys // head, 1),
        "d_model": int(lengths(family.o)[1]),
        "d_head": head,
        "d_vocab": int(unembed.weight.shape[0]),
    }
    if int(embed.weight.shape[0]) < sizes["d_vocab"]:
        sizes["d_vocab"] = int(embed.weight.shape[0])
    if family.mlp_out:
        sizes["d_mlp"] = lengths(family.mlp_out)[0]
    return sizes
