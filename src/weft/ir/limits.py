"""How much an experiment may ask for. Every limit is a number of `Limits`; passing one is an error that states both.

check(experiment, card, replace(DEFAULT, max_new_tokens=64))
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from weft.errors import LimitError

MIB, GIB = 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds, all inclusive. The first group guards reading a file, the second what the program asks for."""

    nodes: int = 100_000
    program_bytes: int = 16 * MIB
    header_bytes: int = 16 * MIB
    constant_bytes: int = 1 * GIB
    depth: int = 48

    values: int = 1_000_000
    value_numel: int = 1 << 32
    value_bytes: int = 8 * GIB
    total_bytes: int = 256 * GIB
    flops: int = 10**16
    layer_tokens: int = 10**9
    max_new_tokens: int = 4096
    name_length: int = 200
    gradient_visits: int = 1_000_000
    loop_steps: int = 1_000_000


WORDS: dict[str, str] = {
    "nodes": "nodes in the program",
    "program_bytes": "bytes of program",
    "header_bytes": "bytes of file header",
    "constant_bytes": "bytes of constants",
    "depth": "levels of nesting",
    "values": "values in the program",
    "value_numel": "elements in one value",
    "value_bytes": "bytes in one value",
    "total_bytes": "bytes in all values together",
    "flops": "floating-point operations outside the model",
    "layer_tokens": "layer·tokens (layers × rows × positions, over all runs)",
    "max_new_tokens": "new tokens in one generation",
    "name_length": "characters in one name",
    "gradient_visits": "nodes visited to check all gradients",
    "loop_steps": "steps of one training loop",
}

DEFAULT = Limits()
UNLIMITED = Limits(**{each.name: 1 << 62 for each in fields(Limits) if each.name != "depth"})


def hold(limits: Limits, name: str, figure: int) -> None:
    """Raise LimitError, with the figure and the limit, if `figure` is above limit `name`."""
    limit = int(getattr(limits, name))
    if figure > limit:
        shown = f"{figure:,}" if figure < 1 << 100 else "over 2^100"
        raise LimitError(
            f"{shown} {WORDS[name]}, but the limit is {limit:,}; ask for less, or raise the limit {name!r} where you "
            "run your own server",
            limit_name=name,
            limit=limit,
            figure=figure if figure < 1 << 63 else shown,
        )
