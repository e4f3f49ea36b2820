"""A model's weights by the names of the field, in the field's layouts, whatever the layout they are stored in.

W_E [d_vocab, d_model]          W_U [d_model, d_vocab]           W_pos [position, d_model]
W_Q[l] W_K[l] W_V[l] [head, d_model, d_head]                     W_O[l] [head, d_head, d_model]
W_in[l] W_gate[l] [d_model, d_mlp]                               W_out[l] [d_mlp, d_model]
b_Q[l] b_K[l] b_V[l] [head, d_head], b_O[l], b_in[l], b_gate[l], b_out[l], b_U where the model has them
param(path): any parameter as it is stored
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn

from weft.errors import ModelError
from weft.models import packing
from weft.models.families import Family
from weft.models.structure import part_at

_NAME = re.compile(r"(\w+)(?:\[(\d+)\])?$")


def weight(module: nn.Module, family: Family | None, sizes: dict[str, int], name: str) -> torch.Tensor:
    """The weight `name` of a model: a view of its parameter. ModelError where there is none of that name."""
    if name.startswith("param(") and name.endswith(")"):
        found = dict(module.named_parameters(remove_duplicate=False)).get(name[6:-1])
    else:
        found = _named(module, family, sizes, name)
    if found is None:
        raise ModelError(f"this model has no weight {name!r}; see model.card.params for those it has")
    return found


def holders(module: nn.Module, family: Family | None, name: str) -> list[nn.Module]:
    """The modules among which the weight `name` is."""
    if name.startswith("param("):
        path = name[6:-1].rpartition(".")[0]
        return [each for at, each in module.named_modules() if at == path]
    match = _NAME.match(name)
    if family is None or match is None:
        return []
    if match.group(2) is not None:
        layer = part_at(module, f"{family.layers}.{match.group(2)}")
        if layer is None:
            return []
        attention = (family.qkv, family.q, family.k, family.v, family.o)
        neurons = (family.gate_up, family.gate, family.mlp_in, family.mlp_out)
        paths = attention if match.group(1)[2:] in ("Q", "K", "V", "O") else neurons
        return [each for path in paths if path and (each := part_at(layer, path)) is not None]
    return [module.get_submodule(path) for path in (family.embed, family.positions, family.unembed) if path]


def names(module: nn.Module, family: Family | None, sizes: dict[str, int]) -> list[str]:
    """Every name that `weight` takes for this model."""
    paths = [f"param({path})" for path, _ in module.named_parameters(remove_duplicate=False)]
    if family is None:
        return paths
    layered = [f"{name}[{layer}]" for name in _LAYERED for layer in range(sizes["n_layers"])]
    standard = [name for name in [*_WHOLE, *layered] if _named(module, family, sizes, name) is not None]
    return standard + paths


def _named(module: nn.Module, family: Family | None, sizes: dict[str, int], name: str) -> torch.Tensor | None:
    match = _NAME.match(name)
    if family is None or match is None:
        return None
    kind, layer = match.group(1), match.group(2)
    if layer is None:
        return _WHOLE[kind](module, family) if kind in _WHOLE else None
    if kind not in _LAYERED or int(layer) >= sizes["n_layers"] or kind in dict(family.lacks):
        return None
    return _LAYERED[kind](module.get_submodule(f"{family.layers}.{layer}"), family, sizes)


def _parameter(module: nn.Module, path: str, name: str) -> torch.Tensor | None:
    part = part_at(module, path) if path else None
    return None if part is None else getattr(part, name, None)


def _positions(module: nn.Module, family: Family) -> torch.Tensor | None:
    stored = _parameter(module, family.positions, "weight")
    return None if stored is None else stored[family.positions_from :]


def _weight(module: nn.Module, path: str, family: Family) -> torch.Tensor | None:
    """A projection's weight as [in, out]."""
    stored = _parameter(module, path, "weight")
    return stored if stored is None or family.conv1d else stored.T


def _transposed(stored: torch.Tensor | None) -> torch.Tensor | None:
    return None if stored is None else stored.T


def _heads(part: str, bias: bool) -> Callable[[nn.Module, Family, dict[str, int]], torch.Tensor | None]:
    def read(layer: nn.Module, family: Family, sizes: dict[str, int]) -> torch.Tensor | None:
        path = family.qkv or getattr(family, part)
        whole = _parameter(layer, path, "bias") if bias else _weight(layer, path, family)
        if whole is None:
            return None
        split = _split(whole, part, family, sizes)
        return split if bias else split.transpose(0, 1)

    return read


def _split(whole: torch.Tensor, part: str, family: Family, sizes: dict[str, int]) -> torch.Tensor:
    """q's, k's or v's columns of a projection's weight or bias: [..., head, d_head]"""
    if family.qkv:
        return packing.split(whole, family.packing, sizes)["qkv".index(part)]
    return whole.unflatten(-1, (-1, sizes["d_head"]))


def _neurons(part: str, bias: bool) -> Callable[[nn.Module, Family, dict[str, int]], torch.Tensor | None]:
    """The gate's or the neurons' own projection, or its half of one that gives both."""

    def read(layer: nn.Module, family: Family, sizes: dict[str, int]) -> torch.Tensor | None:
        path = family.gate_up or getattr(family, part)
        whole = _parameter(layer, path, "bias") if bias else _weight(layer, path, family)
        return whole if whole is None or not family.gate_up else whole.chunk(2, dim=-1)[part == "mlp_in"]

    return read


def _w_o(layer: nn.Module, family: Family, sizes: dict[str, int]) -> torch.Tensor | None:
    stored = _weight(layer, family.o, family)
    return None if stored is None else stored.unflatten(0, (sizes["n_heads"], -1))


_WHOLE: dict[str, Callable[[nn.Module, Family], torch.Tensor | None]] = {
    "W_E": lambda module, family: _parameter(module, family.embed, "weight"),
    "W_pos": lambda module, family: _positions(module, family),
    "W_U": lambda module, family: _transposed(_parameter(module, family.unembed, "weight")),
    "b_U": lambda module, family: _parameter(module, family.unembed, "bias"),
}
_LAYERED: dict[str, Callable[[nn.Module, Family, dict[str, int]], torch.Tensor | None]] = {
    "W_Q": _heads("q", bias=False),
    "W_K": _heads("k", bias=False),
    "W_V": _heads("v", bias=False),
    "W_O": _w_o,
    "W_in": _neurons("mlp_in", bias=False),
    "W_gate": _neurons("gate", bias=False),
    "W_out": lambda layer, family, sizes: _weight(layer, family.mlp_out, family),
    "b_Q": _heads("q", bias=True),
    "b_K": _heads("k", bias=True),
    "b_V": _heads("v", bias=True),
    "b_O": lambda layer, family, sizes: _parameter(layer, family.o, "bias"),
    "b_in": _neurons("mlp_in", bias=True),
    "b_gate": _neurons("gate", bias=True),
    "b_out": lambda layer, family, sizes: _parameter(layer, family.mlp_out, "bias"),
}
