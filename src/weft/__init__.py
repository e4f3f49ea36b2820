"""weft: reproducible experiments on the insides of large pretrained models, on your machine or on a shared server.

    import weft

    model = weft.load("induction")
    with model.session() as s:
        clean = s.run("one two three one two")
        logits = clean.logits[:, -1].save("logits")
    s.results["logits"], s.record

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from weft import errors
from weft.errors import WeftError

if TYPE_CHECKING:
    from weft.api import connect, load, replay
    from weft.collect import Collection
    from weft.record.format import Record
    from weft.trace import Model, cross_entropy, grad, kl, log_prob, logit_diff, prob, score

_HOMES = {
    "weft.api": ("connect", "load", "replay"),
    "weft.collect": ("Collection",),
    "weft.record.format": ("Record",),
    "weft.trace": ("Model", "cross_entropy", "grad", "kl", "log_prob", "logit_diff", "prob", "score"),
}
_PACKAGES = ("methods", "planted", "plot", "tasks")
"""Parts of weft that `weft.methods…` finds without an import of their own."""
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0.dev0"
__all__ = [
    "Collection",
    "Model",
    "Record",
    "WeftError",
    "connect",
    "cross_entropy",
    "errors",
    "grad",
    "kl",
    "load",
    "log_prob",
    "logit_diff",
    "prob",
    "replay",
    "score",
]


def __getattr__(name: str) -> Any:
    if name == "models":  # weft.models.register, weft.models.inspect
        return import_module("weft.models")
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    if name in _PACKAGES:
        return import_module(f"weft.{name}")
    raise AttributeError(f"module 'weft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
