"""Induction heads, in an atlas."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from weft.atlas.part import Context, Figure, Part, Skip
from weft.methods import InductionHeads, Result, induction_heads

LENGTH, LEAST = 20, 5
"""Tokens that are said twice, and with how few it is not tried."""


def find(context: Context) -> InductionHeads:
    if why := context.model.support("pattern"):
        raise Skip(f"its attention cannot be read: {why}")
    longest = (context.model.card.max_positions or 64) // 2 - 1
    if longest < LEAST:
        raise Skip(f"it takes {context.model.card.max_positions} tokens, too few to say {LEAST} of them twice")
    return induction_heads(context.model, length=min(LENGTH, longest), seed=context.seed)


def says(found: Result) -> Iterable[str]:
    assert isinstance(found, InductionHeads)
    after = found.strongest()
    where = (
        "what followed the same token before" if after == 1 else f"the place {after} after the same token's first time"
    )
    heads = [f"L{layer}H{head}" for layer, head in found.above(after=after)]
    return [
        f"Heads with half their attention on {where}: {', '.join(heads) or 'none'}.",
        f"Of random tokens said a second time it foretells {float(found['copied']):.2f}.",
    ]


def figures(found: Result) -> Sequence[Figure]:
    assert isinstance(found, InductionHeads)
    after = found.strongest()
    best = found.above(after=after)[:1]
    grid = found.plot("later", after=after, **({"mark": best[0]} if best else {}))
    where = "what followed it the first time" if after == 1 else f"the place {after} after its first time"
    return [
        Figure(f"Attention from a repeated token to {where}, by head.", grid),
        Figure(
            "Attention to the token just before, which an induction head of the textbook needs below it.",
            found.plot("previous"),
        ),
    ]


PART = Part(
    name="induction",
    title="Induction heads",
    asks="Say random tokens twice. A head that, at a token's second time, looks at what followed it the first time lets the "
    "model go on as before: the simplest way to learn from the text at hand.",
    misleads="Attention is where a head looks, not what it does with it. Patch the head's output to know.",
    run=find, says=says, figures=figures,
)  # fmt: skip
