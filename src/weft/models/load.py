"""Load a model, or wrap one that is in memory.

load("a/local/folder"), load("org/name", revision="…"), load(hf_model, tokenizer=tok), load(any_module)
load("a/large/folder", dtype="bfloat16", device="cuda")          device_map=, max_memory=, offload_folder=: `placement`
load("a/folder/without/weights"), load("org/name", weights=False)          shapes alone: `shapes`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weft.errors import ModelError
from weft.models import placement, registry, shapes, tokens
from weft.models.families import BY_MODEL_TYPE, Family, resolved
from weft.models.loaded import Loaded
from weft.models.structure import part_at
from weft.models.tables import other

Factory = Callable[[], tuple[nn.Module, Any]]
_BUILTINS: dict[str, Factory] = {}


def register_builtin(name: str, factory: Factory) -> None:
    """Make `load(name)` give what `factory()` does: a module and its tokenizer (or None)."""
    _BUILTINS[name] = factory


def load(
    source: str | os.PathLike[str] | nn.Module,
    tokenizer: Any = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    name: str | None = None,
    *,
    device_map: placement.DeviceMap | None = None,
    max_memory: Mapping[Any, Any] | None = None,
    offload_folder: str | os.PathLike[str] | None = None,
    weights: bool | None = None,
) -> Loaded:
    """The model at `source`: a built-in's name, a local folder, a hub id, a transformers model, or any nn.Module.

    Weights are read from safetensors alone. A model in memory is left as it is: `dtype` and `device` are for models
    loaded here, which are put into eval mode. `tokenizer` may be a folder, a transformers tokenizer, a
    `tokenizers.Tokenizer`, or nothing; without one, prompts are token ids.

    `device_map` ("auto", or {path: device, "cpu" or "disk"}), `max_memory` ({device: "20GiB"}) and `offload_folder` place
    a model that no one device holds; they need accelerate. Without `weights` only the configuration is read: a model of
    shapes, to be traced against and not run. So is a folder that has a configuration and no weights, unless `weights`.
    """
    if isinstance(source, nn.Module):
        given = (dtype, device, revision, device_map, max_memory, offload_folder, weights)
        if any(each is not None for each in given):
            raise ModelError(
                "dtype=, device=, revision=, weights= and the options of placement are for models that weft loads; move or "
                "cast yours yourself"
            )
        _refuse_training(source)
        return _wrap(source, _tokenizer(tokenizer), name or type(source).__name__, "", "")
    where = os.fspath(source)
    if where == "bobbin":
        from weft import bobbin

        bobbin.register()
    place = placement.options(device, device_map, max_memory, offload_folder)
    if where in _BUILTINS:
        if device_map is not None or weights is False:
            raise ModelError(
                f"{where} is built in: it is made here, on one device=; leave device_map= and weights= out"
            )
        module, own = _BUILTINS[where]()
        module = module.to(device=device, dtype=_dtype(dtype)).eval()
        return _wrap(module, _tokenizer(own if tokenizer is None else tokenizer), name or where, where, "")
    label, of = name or _label(where), _label(where)
    with shapes.uncollected():
        known = _tokenizer(_own_tokenizer(where, revision) if tokenizer is None else tokenizer)
    if weights is False or (weights is None and shapes.lacks_weights(where)):
        module, found = _read(where, revision, lambda: shapes.of_configuration(where, _dtype(dtype), revision))
        return replace(_wrap(module, known, label, of, found), missing=shapes.missing(where, weights is False))
    module, found = _read(where, revision, lambda: _weighed(where, dtype, revision, place))
    module = (module if place else module.to(device=device)).eval()
    return _wrap(module, known, label, of, found)


def _label(where: str) -> str:
    return Path(where).name if Path(where).is_dir() else where


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"dtype={dtype!r} is no dtype; give one such as 'float32' or 'bfloat16'")
    return found


def _weighed(where: str, dtype: Any, revision: str | None, place: dict[str, Any]) -> nn.Module:
    from transformers import AutoModelForCausalLM

    # safetensors only: a pickled checkpoint runs code as it is read.
    return AutoModelForCausalLM.from_pretrained(
        where, dtype=_dtype(dtype) or "auto", revision=revision or "main", use_safetensors=True, **place
    )


def _read(where: str, revision: str | None, make: Callable[[], nn.Module]) -> tuple[nn.Module, str]:
    """What `make` gives, and its revision; ModelError for what cannot be read."""
    try:
        module = make()
    except (OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set, so only what is in the cache is found)" if _offline() else ""
        known = f"; built in: {', '.join(sorted(_BUILTINS))}" if _BUILTINS else ""
        raise ModelError(
            f"cannot load {where!r}: it is no built-in and no readable folder or hub model{offline}{known}. {error}"
        ) from error
    config: Any = module.config
    return module, str(getattr(config, "_commit_hash", None) or revision or "")


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _own_tokenizer(where: str, revision: str | None) -> Any:
    """The tokenizer beside the weights; None where there is none."""
    from transformers import AutoTokenizer

    if Path(where).is_dir() and not any(Path(where).glob("*token*")):
        return None
    try:
        return AutoTokenizer.from_pretrained(where, revision=revision or "main")
    except (OSError, ValueError):
        return None


def _tokenizer(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if isinstance(given, str | os.PathLike):
        from transformers import AutoTokenizer

        given = AutoTokenizer.from_pretrained(os.fspath(given))
    return tokens.data_of(given)


def _refuse_training(module: nn.Module) -> None:
    """A model of the user's is not touched; one whose forward is random or changes it cannot be experimented on."""
    for path, each in module.named_modules():
        drops = isinstance(each, nn.modules.dropout._DropoutNd) and each.p > 0
        rate = getattr(each, "attention_dropout", 0.0)  # a rate, or (BLOOM) a module, which is looked at by itself
        drops = drops or (isinstance(rate, int | float) and rate > 0)
        learns = isinstance(each, nn.modules.batchnorm._NormBase) and each.track_running_stats
        if each.training and (drops or learns):
            why = "drops values at random" if drops else "changes its running statistics"
            raise ModelError(
                f"{type(module).__name__} is in training mode and {path or type(each).__name__} {why}; "
                "call .eval() on the model, then load it"
            )


def _wrap(module: nn.Module, tokenizer: dict[str, str], name: str, identity: str, revision: str) -> Loaded:
    mine = registry.find(module)
    if mine is not None:
        more = {"tokenizer": tokenizer, "name": name, "id": identity, "revision": revision}
        return registry.wrap(module, mine, **more)
    config: Any = getattr(module, "config", None)
    decoder = hasattr(config, "model_type") and module.__class__.__name__.endswith(("ForCausalLM", "LMHeadModel"))
    if decoder and not hasattr(config, "num_attention_heads"):
        found, sizes = _other(module, config), _stream_sizes(config)
        return Loaded(module, name, "decoder", found, sizes, tokenizer, identity, revision, plain=True)
    family = _family(module, config) if decoder else None
    sizes = _sizes(module, config, family) if decoder else {}
    return Loaded(module, name, "decoder" if decoder else "module", family, sizes, tokenizer, identity, revision)


def _family(module: nn.Module, config: Any) -> Family | None:
    """The table for this model; none where its configuration departs from what the table says."""
    known = BY_MODEL_TYPE.get(config.model_type)
    family = None if known is None else resolved(known, config)
    if family is None or getattr(config, "add_cross_attention", False) or getattr(config, "pruned_heads", None):
        return None
    paths = {path for path, _ in module.named_modules()}
    return family if {family.layers, family.final_norm, family.unembed} <= paths else None


def _other(module: nn.Module, config: Any) -> Family | None:
    """The table of a model that has a stream and no attention."""
    known = other.BY_TYPE.get(config.model_type)
    family = None if known is None else resolved(known, config)
    paths = {path for path, _ in module.named_modules()}
    return family if family is not None and {family.layers, family.final_norm, family.unembed} <= paths else None


def _stream_sizes(config: Any) -> dict[str, int]:
    """What sizes a model without heads has."""
    named = {"n_layers": "num_hidden_layers", "d_model": "hidden_size", "d_vocab": "vocab_size"}
    return {size: int(value) for size, name in named.items() if isinstance(value := getattr(config, name, None), int)}


def _sizes(module: nn.Module, config: Any, family: Family | None) -> dict[str, int]:
    heads, width = int(config.num_attention_heads), int(config.hidden_size)
    own = _heads(module, family, heads, int(config.num_hidden_layers)) if family is not None else {}
    sizes = {
        "n_layers": int(config.num_hidden_layers),
        "n_heads": heads,
        "n_kv_heads": int(getattr(config, "num_key_value_heads", None) or heads),
        "d_model": width,
        "d_head": int(getattr(config, family.d_head_in if family else "head_dim", None) or width // heads),
        "d_vocab": int(config.vocab_size),
        **own,
    }
    if family is not None:
        unembed: Any = module.get_submodule(family.unembed).weight
        sizes["d_vocab"] = int(unembed.shape[0])
    if family is not None and family.d_v_in:
        sizes["d_v"] = int(getattr(config, family.d_v_in))
    mlp = _in_a_layer(module, family, family.mlp_out, sizes["n_layers"]) if family is not None else None
    if family is not None and mlp is not None:
        sizes["d_mlp"] = int(mlp.weight.shape[0 if family.conv1d else -1])
    elif isinstance(getattr(config, "intermediate_size", None), int):
        sizes["d_mlp"] = int(config.intermediate_size)
    experts = _in_a_layer(module, family, family.experts, sizes["n_layers"]) if family is not None else None
    if experts is not None:
        sizes["n_experts"] = int(experts.num_experts)
    return sizes


def _in_a_layer(module: nn.Module, family: Family, path: str, n_layers: int) -> Any:
    """The part at that path in the first layer that has one: layers with experts and without may alternate."""
    for layer in range(n_layers) if path else ():
        found = part_at(module.get_submodule(f"{family.layers}.{layer}"), path)
        if found is not None:
            return found
    return None


def _heads(module: nn.Module, family: Family, heads: int, layers: int) -> dict[str, int]:
    """How wide heads are and how many keys and values have, by the weights: configurations call that many names."""
    out = _in_a_layer(module, family, family.o, layers)
    made = _in_a_layer(module, family, family.k or family.qkv, layers)
    if out is None or made is None:
        return {}
    width = int(out.weight.shape[0 if family.conv1d else -1]) // heads
    rows = int(made.weight.shape[-1 if family.conv1d else 0]) // width
    return {"d_head": width, "n_kv_heads": rows if family.k else (rows - heads) // 2}
