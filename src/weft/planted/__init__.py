"""Small transformers built by hand, whose mechanism is known exactly.

    planted = weft.planted.build("predicates", rotate=True)
    planted.model, planted.tokenizer       # an ordinary transformers model and tokenizer
    planted.truth.heads["filter"]          # (layer, head)

A method that is right finds the truth in them; one that looks at a neighbouring site, layer or position does not.
Nothing is downloaded: the weights are written down by the code.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from weft.errors import ModelError

_TWINS: dict[str, tuple[str, dict[str, bool]]] = {
    "predicates-eager": ("predicates", {"eager": True}),
    "pointers-positional": ("pointers", {"positional": True}),
}
"""The same task, solved in another way: by name, the module and the option."""
_NAMES = ("induction", "predicates", "dual_route", "functions", "pointers", "double_pointers", *_TWINS)
BUILT_IN: dict[str, str] = {
    prefix + name: f"weft.planted.{_TWINS.get(name, (name,))[0]}" for prefix in ("", "planted/") for name in _NAMES
}
"""The built-in planted models by name, with the module that builds each (imported only when it is asked for)."""


def build(name: str = "induction", *, seed: int = 0, **options: Any) -> Any:
    """Build the planted model `name`, e.g. `build("functions", family="llama")`: its model, tokenizer and truth.

    Another `seed` puts the mechanism into other heads. The options of all but `induction` are those of
    `weft.planted.assemble.Variant`; `build("predicates", eager=True)` and `build("pointers", positional=True)` are twins
    that solve the same task in another way.
    """
    if name not in BUILT_IN:
        raise ModelError(f"no planted model is called {name!r}; there are {', '.join(_NAMES)}")
    own = _TWINS.get(name.removeprefix("planted/"), ("", {}))[1]
    if options and name.endswith("induction"):
        raise ModelError(
            f"the model 'induction' takes only seed=, not {', '.join(options)}; the other models take more"
        )
    return import_module(BUILT_IN[name]).build(seed=seed, **own, **options)


def register() -> None:
    """Let `weft.models.load` find the planted models by name; nothing is built before it is asked for."""
    from weft.models.load import register_builtin

    for name in BUILT_IN:
        if name.startswith("planted/") or name == "induction":
            register_builtin(name, lambda name=name: build(name)[:2])
