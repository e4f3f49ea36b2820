"""Where a model's weights are: on one device, spread over several, or on disk between uses.

load("a/folder", device="cuda")                                   straight there, with no copy in the machine's memory
load("a/folder", device_map="auto")                               over all devices there are, and the machine's memory
load("a/folder", device_map={"": "cpu", "model.layers.7": "disk"}, offload_folder="spare")

Placement over several is accelerate's: its hooks bring a module's weights to where it runs as it is called, so between
calls a parameter may be an empty one, on the meta device.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from weft.errors import ModelError

Where = str | int | torch.device
DeviceMap = Where | Mapping[str, Where]
_ON_EACH = ("_hf_hook", "_old_forward", "forward")
_ON_WHOLE = ("to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "neuron")
"""What accelerate puts on a module whose weights it moves, and on the whole model."""


def options(
    device: str | torch.device | None,
    device_map: DeviceMap | None,
    max_memory: Mapping[Any, Any] | None,
    offload_folder: str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """What transformers is told of where the weights are to go. ModelError for what cannot be."""
    if device_map is None:
        for name, value in (("max_memory", max_memory), ("offload_folder", offload_folder)):
            if value is not None:
                raise ModelError(f'{name}= is for a model placed by device_map=; give that too, e.g. device_map="auto"')
        straight = device is not None and torch.device(device).type not in ("cpu", "meta") and _has_accelerate()
        return {"device_map": {"": torch.device(device)}} if straight and device is not None else {}
    if device is not None:
        raise ModelError(f"device={str(device)!r} and device_map= both say where the model goes; give one of them")
    if not _has_accelerate():
        raise ModelError("device_map= needs the package accelerate: pip install 'weft[large]'; or give device=")
    disk = isinstance(device_map, Mapping) and "disk" in map(str, device_map.values())
    if disk and offload_folder is None:
        raise ModelError('device_map= puts parts on "disk": say which folder they may be kept in, offload_folder="…"')
    given = {"max_memory": max_memory, "offload_folder": None if offload_folder is None else os.fspath(offload_folder)}
    placed = dict(device_map) if isinstance(device_map, Mapping) else device_map
    return {"device_map": placed, **{name: value for name, value in given.items() if value is not None}}


def _has_accelerate() -> bool:
    return importlib.util.find_spec("accelerate") is not None


def placed(module: nn.Module) -> bool:
    """Whether accelerate's hooks move weights or values about in this model."""
    return any("_hf_hook" in vars(each) for each in module.modules())


def device_of(module: nn.Module) -> torch.device:
    """Where the model takes its tokens: where its first parameter is, or is brought to."""
    for each in module.modules():
        for parameter in each._parameters.values():
            if parameter is not None:
                hook: Any = vars(each).get("_hf_hook")
                away = parameter.is_meta and getattr(hook, "execution_device", None) is not None
                return torch.device(hook.execution_device) if away else parameter.device
    return torch.device("cpu")


@contextmanager
def here(*modules: nn.Module) -> Iterator[None]:
    """While open, these modules have their own weights (not their children's), wherever they lie otherwise."""
    away = [
        each for each in modules if "_hf_hook" in vars(each) and any(p is not None and p.is_meta for p in _own(each))
    ]
    if not away:
        yield
        return
    from accelerate.utils import align_module_device

    with ExitStack() as stack:
        for each in away:
            stack.enter_context(align_module_device(each))
        yield


def _own(module: nn.Module) -> Iterator[torch.Tensor | None]:
    yield from module._parameters.values()
    yield from module._buffers.values()


def bare(module: nn.Module, memo: dict[int, Any]) -> None:
    """Keep deepcopy from what accelerate put on a module: the copy is to be the model's own, without weights."""
    for each in module.modules():
        ours = (*(_ON_EACH if "_hf_hook" in vars(each) else ()), *(_ON_WHOLE if each is module else ()))
        memo.update({id(vars(each)[name]): _GONE for name in ours if name in vars(each)})


def unhooked(twin: nn.Module) -> None:
    """A copy made after `bare` with its class's own methods again."""
    for each in twin.modules():
        for name in [name for name, value in vars(each).items() if value is _GONE]:
            del vars(each)[name]


class _Gone:
    """Stands in a copy for what was not to be copied."""


_GONE = _Gone()
