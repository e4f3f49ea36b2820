"""What weft gives of each type of model, found out from the type's own configuration without a weight.

described("mixtral").sites, described("mixtral").absent["mlp_pre"]
"""

from __future__ import annotations

import difflib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from weft.errors import ModelError, NotFoundError
from weft.models.families import BY_MODEL_TYPE, FAMILIES, STANDARD_SITES, Family
from weft.models.tables import other
from weft.models.tables.without import WITHOUT

_REPAIRS: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6, "topk_group": 1, "n_group": 1, "n_routed_experts": 64},
    "dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128},
    "ministral": {"head_dim": 128},
    "rwkv": {"rescale_every": 0},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 48},
}
"""What transformers' default configurations leave out, so that no model can be made from them as they are; and what the
tables do not hold for."""
_AUTO = (
    "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM", "AutoModelForImageTextToText",
    "AutoModelForImageClassification", "AutoModel",
)  # fmt: skip


BY_PATH: dict[str, str] = {
    "encoders": "bert, roberta, distilbert, modernbert",
    "encoder-decoders": "t5, bart",
    "vision": "vit, clip, siglip",
    "vision and language": "llava, qwen2_vl",
}
"""Kinds that are no decoders of tokens, with those types that weft's tests read and write by path."""

_CLASSES = {"emu3_text_model": "Emu3ForCausalLM"}
"""Models that transformers' automatic classes do not know by their configuration."""


@dataclass(frozen=True)
class Described:
    """A type of model: its standard sites in order, and of the others why there are none.

    `absent` has reasons by site, "pattern", and by site and layer, "pattern[3]", where only some layers lack it. `failed`
    says why nothing could be found out.
    """

    model_type: str
    family: str
    model: str = ""
    kind: str = "decoder"
    sites: tuple[str, ...] = ()
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    failed: str = ""


def model_types() -> list[str]:
    """The types that have a table, those of a family together, in the order of the tables."""
    return [*(kind for family in FAMILIES.values() for kind in family.model_types), *other.BY_TYPE]


def family_of(model_type: str) -> Family:
    """The table of a type. NotFoundError with the nearest names."""
    known = {**BY_MODEL_TYPE, **other.BY_TYPE}
    found = known.get(model_type)
    if found is None and model_type in WITHOUT:
        raise NotFoundError(
            f"weft has no table for model type {model_type!r}: {WITHOUT[model_type]}. It has its modules by path"
        )
    if found is None:
        near = difflib.get_close_matches(model_type, known, n=3, cutoff=0.5)
        meant = f"; did you mean {', '.join(near)}?" if near else ""
        raise NotFoundError(f"weft has no table for model type {model_type!r}{meant} (weft models lists them)")
    return found


def described(model_type: str) -> Described:
    """What there is of a type of model, by its default configuration."""
    family = family_of(model_type)
    try:
        module = default_model(model_type)
    except Exception as error:  # whatever a class of somebody else's does with its own defaults
        return Described(model_type, family.name, failed=f"{type(error).__name__}: {error}")
    return of_module(module, model_type, family.name)


def of_module(module: nn.Module, model_type: str, family: str) -> Described:
    """What there is of one model."""
    from weft.models.load import load

    card = load(module).card
    specs = [spec for spec in card.sites if not spec.site.path]
    there = {spec.site.name for spec in specs}
    names = tuple(name for name in (*STANDARD_SITES, *sorted(there - set(STANDARD_SITES))) if name in there)
    axes = {spec.site.name: spec.axes for spec in specs}
    return Described(model_type, family, type(module).__name__, card.kind, names, axes, dict(card.absent))


def default_model(model_type: str) -> nn.Module:
    """A model of a type as transformers configures it by default, on the meta device. ModelError where it has no class."""
    import transformers

    with _quietly(), torch.device("meta"):
        config: Any = transformers.CONFIG_MAPPING[model_type](**_REPAIRS.get(model_type, {}))
        for name in _AUTO:
            auto: Any = getattr(transformers, name)
            if type(config) in auto._model_mapping:
                return auto.from_config(config, dtype=torch.float32).eval()
        if model_type in _CLASSES:
            return getattr(transformers, _CLASSES[model_type])(config).eval()
    raise ModelError(f"transformers {transformers.__version__} has no model for {model_type!r}")


@contextmanager
def _quietly() -> Iterator[None]:
    """Default configurations name tokens that their vocabularies lack, and transformers says so each time."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
