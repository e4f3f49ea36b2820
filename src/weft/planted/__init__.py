"""Small transformers built by hand, whose mechanism is known exactly.

    planted = weft.planted.build("induction")
    planted.model, planted.tokenizer       # an ordinary transformers model and tokenizer
    planted.truth.induction                # (layer, head)

A method that is right finds the truth in them; one that looks at a neighbouring site, layer or position does not.
Nothing is downloaded: the weights are written down by the code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from weft.errors import ModelError

if TYPE_CHECKING:
    from weft.planted.induction import Planted

BUILT_IN: dict[str, str] = {"induction": "weft.planted.induction", "planted/induction": "weft.planted.induction"}
"""The built-in planted models by name, with the module that builds each (imported only when it is asked for)."""


def build(name: str = "induction", *, seed: int = 0) -> Planted:
    """Build the planted model `name`, e.g. `build("induction")`; another `seed` puts the mechanism into other heads."""
    if name not in BUILT_IN:
        raise ModelError(f"no planted model is called {name!r}; there are {', '.join(BUILT_IN)}")
    return import_module(BUILT_IN[name]).build(seed=seed)


def register() -> None:
    """Let `weft.models.load` find the planted models by name; nothing is built before it is asked for."""
    from weft.models.load import register_builtin

    for name in BUILT_IN:
        register_builtin(name, lambda name=name: build(name)[:2])
