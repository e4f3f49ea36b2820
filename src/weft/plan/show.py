"""Plans as text: for people, and for the tests that pin what each pass of the planner does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from weft.plan.compiled import Stage
from weft.plan.cost import Prices, by_layer, cost, most_tokens
from weft.plan.pieces import Piece, Plan

SAVED_BY = {
    "share": "equal states once",
    "prune": "nothing above the last site that is read",
    "suffix": "from each row's first edited position on",
}


def render(plan: Plan) -> str:
    """A plan, piece by piece."""
    lines: list[str] = []
    for number, numbers in enumerate(plan.passes):
        lines.append(f"pass {number + 1}")
        lines += [f"  {_piece(plan, each, plan.pieces[each])}" for each in numbers]
    return "\n".join(lines) + "\n"


def _piece(plan: Plan, number: int, piece: Piece) -> str:
    whose = "base" if piece.run is None else f"%{piece.run} row {piece.at}"
    layers = f"layers {piece.layer}–{piece.last}" if piece.layer <= piece.last else f"enters layer {piece.layer}"
    layers += " up to z" if piece.half else ""
    after = "" if piece.before is None else f"  after #{piece.before}"
    tokens = " ".join(map(str, piece.row[piece.first :]))
    return f"#{number} {whose}  positions {piece.first}–{len(piece.row) - 1}  {layers}  tokens {tokens}{after}"


def told(stages: Sequence[Stage], prices: Prices) -> tuple[str, ...]:
    """What was asked for, what each pass of the planner saved, and what is left to do: lines of a few words each."""
    costs = [cost(stage.plan, prices) for stage in stages]
    asked, plan = costs[0], stages[-1].plan
    lines = [f"asked for      {len(plan.forks)} runs: {_amount(asked.layer_tokens, asked.flops)}"]
    for stage, before, after in zip(stages[1:], costs[:-1], costs[1:], strict=True):
        if stage.name in SAVED_BY:
            saved = 100 * (before.flops - after.flops) / max(asked.flops, 1)
            lines.append(f"  {stage.name:<13}{-saved:+.1f} %  {SAVED_BY[stage.name]}")
    done = costs[-1]
    lines.append(
        f"planned        {_amount(done.layer_tokens, done.flops)}, {operations(done.attention)} of them in attention"
    )
    lines.append(f"  passes       {_passes(plan)}")
    return (*lines, *_layers(plan))


def _amount(layer_tokens: int, flops: int) -> str:
    return f"{layer_tokens:,} layer·tokens, {operations(flops)} in the layers"


def operations(count: int) -> str:
    """So many floating-point operations, in a unit of a fitting size."""
    unit, size = next(((u, s) for u, s in (("T", 1e12), ("G", 1e9), ("M", 1e6)) if count >= s), ("k", 1e3))
    return f"{count / size:.4g} {unit}FLOP"


def _passes(plan: Plan) -> str:
    bases = sum(plan.pieces[numbers[0]].run is None for numbers in plan.passes)
    rows = sum(piece.run is not None for piece in plan.pieces.values())
    return (
        f"{bases} of {len(plan.pieces) - rows} unedited rows, {len(plan.passes) - bases} of {rows} edited ones; "
        f"at most {most_tokens(plan):,} tokens at once"
    )


def _layers(plan: Plan) -> list[str]:
    """Rows and tokens of each layer; equal neighbours in one line."""
    lines: list[str] = []
    for layer, numbers in groupby(enumerate(by_layer(plan)), key=lambda each: each[1]):
        at = [number for number, _ in numbers]
        name = f"layer {at[0]}" if len(at) == 1 else f"layers {at[0]}–{at[-1]}"
        base = f"{layer.base_tokens:,} tokens of {layer.base_rows:,} unedited rows"
        lines.append(f"  {name:<13}{base}, {layer.tokens:,} of {layer.rows:,} edited")
    return lines


__all__ = ["operations", "render", "told"]
