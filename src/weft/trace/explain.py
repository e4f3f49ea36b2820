"""What an experiment cost, in words."""

from __future__ import annotations

from weft.ir.outcome import Outcome


def explain(outcome: Outcome) -> str:
    """The work asked for and the work done, as a few lines of text."""
    work = outcome.work
    lines = [
        f"plan           {outcome.plan}",
        f"runs           {work.get('runs', 0)} in {work.get('passes', 0)} forward passes of {work.get('rows', 0)} rows",
        f"layer·tokens   {work.get('layer_tokens_asked', 0)} asked for, {work.get('layer_tokens_done', 0)} done",
        *(
            [f"arithmetic     {work['flops'] / 1e9:.3g} GFLOP in the layers' weights and the logits"]
            if "flops" in work
            else []
        ),
        f"edits          {outcome.edits.asked} asked for, {outcome.edits.applied} applied, "
        f"{outcome.edits.without_effect} without effect on anything read",
        f"time           {outcome.seconds:.3f} s",
        *outcome.notes,
    ]
    return "\n".join(lines)
