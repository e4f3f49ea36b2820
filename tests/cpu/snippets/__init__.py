"""Pieces of ordinary user code, each a function of one or two of a model's values.

    @snippet
    def first_token(h):                      # [batch 2, pos 5, d_model 12]; a second argument is another site
        return h[:, 0]

    @snippet(raises=OpError, says="clone")   # must be refused at the line marked "# here", naming the way out
    def ...

A snippet is run twice: on the numbers, and traced. What it returns, what it leaves in its arguments, and the gradients
of both must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Snippet:
    """`raises` and `says`: the refusal expected. `gradient` is False where weft refuses a gradient PyTorch would give,
    None where PyTorch's is wrong (it keeps operands by reference, and they were changed behind its back).
    `tolerance` is that of the gradients, relative to the largest; values have a tenth of it.
    """

    function: Callable[..., Any]
    raises: type[Exception] | None = None
    says: str = ""
    gradient: bool | None = True
    tolerance: float = 1e-5

    @property
    def name(self) -> str:
        return f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"


THEMES = (
    "views inplace aliases modules functional indexing masks gradients transforms linalg dtypes python factories constants"
).split()
SNIPPETS: list[Snippet] = []


def snippet(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Add a function to SNIPPETS."""
    if function is None:
        return lambda each: snippet(each, **options)
    SNIPPETS.append(Snippet(function, **options))
    return function


def randn(*shape: int, seed: int = 0) -> Any:
    """Numbers of one's own, the same at every run."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def load() -> list[Snippet]:
    """All of them."""
    import importlib

    for name in THEMES:
        importlib.import_module(f"snippets.{name}")
    return SNIPPETS
