"""What the engine leaves: generations that are decoded side by side, and runs as the reference runs them, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from weft.execute import reference
from weft.execute.decoding import Decoding
from weft.execute.needed import Uses
from weft.execute.reference import Interpreter
from weft.execute.trialdecoding import undecoded
from weft.ir.nodes import Experiment, Run
from weft.ir.outcome import Outcome
from weft.plan.generations import Program, Turn, turns

MOST_BYTES = 1 << 30
"""Keys and values of generations that are decoded side by side: where they take more, they come one after another."""


def take_turns(owner: Interpreter, left: Mapping[int, str]) -> tuple[tuple[str, ...], Mapping[int, str]]:
    """Run the runs that the engine left, in turns with the generations among them; notes, and what was not decoded."""
    if not _generating(owner, left):
        owner.advance(list(left))
        return (), left
    uses, needed = owner.uses, owner.uses.needed
    reason = undecoded(owner.loaded, _trusted, reference.run)
    program = Program(
        owner.nodes,
        {run: [i for i in uses.reads[run] if i in needed] for run in left},
        {run: [i for i in uses.writes[run] if i in needed] for run in left},
        owner.loaded.card,
        uses.with_grad,
        reason,
    )
    found = turns(program, left, set(uses.runs()) - set(left))
    notes: list[str] = []
    for turn in found.turns:
        if turn.together:
            notes += [_decode(owner, runs) for runs in _batches(owner, turn)]
        else:
            owner.advance(list(turn.groups[0]))
    return tuple(notes), found.left


def _generating(owner: Interpreter, left: Mapping[int, str]) -> bool:
    return any(isinstance(node := owner.nodes[run], Run) and node.kind == "generate" for run in left)


def _trusted(loaded: Any, experiment: Experiment) -> Outcome:
    uses = Uses(experiment)
    owner = Interpreter(loaded, experiment, uses, None, None)
    owner.flow.start()
    take_turns(owner, dict.fromkeys(uses.runs(), ""))
    return owner.outcome("planned", 0.0)


def _decode(owner: Interpreter, runs: tuple[int, ...]) -> str:
    decoding = Decoding(owner, runs)
    rows = len(decoding.slots)
    decoding.run()
    return (
        f"decoded        {len(runs)} generation{'s' * (len(runs) > 1)} side by side, {rows} rows, {decoding.step} steps"
    )


def _batches(owner: Interpreter, turn: Turn) -> list[tuple[int, ...]]:
    """As many groups at once as there is memory for; always at least one."""
    found: list[tuple[int, ...]] = []
    held = 0
    for group in turn.groups:
        size = sum(_bytes(owner, run) for run in group)
        if found and held + size <= MOST_BYTES:
            found[-1], held = (*found[-1], *group), held + size
        else:
            found.append(group)
            held = size
    return found


def _bytes(owner: Interpreter, run: int) -> int:
    """What the keys and values of a generation take at its end."""
    node, sizes = owner.nodes[run], owner.loaded.card.sizes
    assert isinstance(node, Run)
    tokens: Any = owner.nodes[dict(node.inputs)["tokens"].node]
    batch, pos = tokens.data.type.shape
    width = getattr(torch, owner.loaded.card.dtype).itemsize * sizes["n_kv_heads"] * sizes["d_head"]
    return 2 * sizes["n_layers"] * width * batch * (pos + int(dict(node.options)["max_new_tokens"]))  # type: ignore[call-overload]
