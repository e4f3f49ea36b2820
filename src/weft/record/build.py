"""Make the record of an experiment that has just run. Takes tensors, so it needs torch, but imports it only here.

record = record_of(loaded, experiment, outcome)
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from weft.ir.nodes import Experiment
from weft.ir.outcome import Outcome
from weft.ir.types import TensorType
from weft.record.format import Record, seeds_of
from weft.record.tensors import Value


def record_of(loaded: Any, experiment: Experiment, outcome: Outcome, *, started: float | None = None) -> Record:
    """The record of `outcome`, which running `experiment` on `loaded` gave."""
    from weft.ir.hash import content_hash

    parameter = next(loaded.module.parameters(), None)
    return Record(
        experiment=experiment,
        experiment_hash=content_hash(experiment),
        fingerprint=dict(loaded.fingerprint()),
        versions=versions(),
        device="cpu" if parameter is None else str(parameter.device),
        dtype=str(loaded.card.dtype),
        plan=outcome.plan,
        results=values(outcome.values),
        edits=outcome.edits,
        seeds=seeds_of(experiment),
        kept={name: named(each) for name, each in outcome.kept.items()},
        work=dict(outcome.work),
        started=time.time() - outcome.seconds if started is None else started,
        seconds=outcome.seconds,
    )


def named(tensor: Any) -> dict[str, Any]:
    """What is known of a tensor without its numbers: dtype, shape, digest."""
    if not hasattr(tensor, "digest"):
        tensor = value(tensor)
    return {**asdict(tensor.type), "digest": tensor.digest()}


def values(tensors: Mapping[str, Any]) -> dict[str, Value]:
    """Torch tensors as bytes."""
    return {name: value(tensor) for name, tensor in tensors.items()}


def value(tensor: Any) -> Value:
    """A torch tensor as bytes, wherever and however it lies in memory."""
    import torch

    plain = tensor.detach().to("cpu").contiguous()
    kind = TensorType(str(plain.dtype).removeprefix("torch."), tuple(plain.shape))
    return Value(kind, plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")


@cache
def versions() -> dict[str, str]:
    """What a number may depend on besides the model."""
    return {"python": platform.python_version()} | {name: _version(name) for name in ("weft", "torch", "transformers")}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
