"""A transformer that answers who believes what by pointers: it carries which one it was, and looks up its name last.

    planted = weft.planted.build("pointers")
    story([("Bob", "bottle", "beer"), ("Sally", "cup", "tea")], ("Sally", "cup"))     # the model goes on with " tea"

Ordering ids (OIs) say which of the characters, objects or states of the story a word is: the first or the second.

Layer 0 counts the words of each kind, and gives each its OI. Another head marks the question.
Layer 1: at each state, (1, 0) and (1, 2) write the OIs of the character and object of its sentence, which stand five
and two before it: its address. At the question's character and object, (1, 4) and (1, 6) find the same word in the
story and copy its OI: pointers.
Layer 2: (2, 0) and (2, 2) bring both pointers to the last token.
Layer 3: the binding head (3, 2) looks for the state with that address and copies the state's own OI: a new pointer.
Layer 4: the answer head (4, 1) looks for the state with that OI and copies the word to `answer`.
With no match all of them look at <bos>, nothing is written, and the model says "unknown".

No position is in the stream: heads look back by rotary angles. So what is moved to another place keeps its meaning, and
a model with learned positions is refused; its positional twin, below, is one. There the address of a state is its
position, and the pointer to it the position of the character named.

Decoys: (3, 3) attends as the binding head and writes nothing; (3, 5) does too, and copies the state to `echo`, which the
unembedding reads but neurons of layer 4 have wiped by then; (4, 4) goes from address to word at once, but only if
layer 3 has found no pointer: when the binding head has been ablated.
"""

from __future__ import annotations

import torch

from weft.errors import ModelError
from weft.planted.assemble import Planted, Variant, assemble, variant_of
from weft.planted.clauses import SLOTS, G, asking, counter, matches, mover, ordering, same_word
from weft.planted.story import (
    STATES,
    TEMPLATE,
    VOCABULARY,
    WORDS,
    embedding,
    question_mark,
    stream,
    unembedding,
)  # fmt: skip
from weft.planted.stream import Mechanism, Step, gates, head, sink

TABLES = {
    "answer_pointer": (0, 0, 1, 1, 0),
    "answer_pointer_shifted": (0, 0, 1, 1, 0),
    "answer_payload": (0, 0, 0, 0, 1),
    "address_and_payload": (0, 1, 1, 1, 0),
    "query_pointers": (0, 1, 0, 0, 0),
    "source_frozen": (1, 0, 0, 0, 0),
    "source_frozen_upto": (1, 1, 1, 1, 1),
    "source_unfrozen": (0, 0, 0, 0, 0),
}
"""By layer, how often interchange gives the counterfactual answer: 0 or 1. `_shifted` takes it from a text in which all
stands three tokens later; `_upto` patches all layers up to this one."""


def build(*, seed: int = 0, positional: bool = False, **variant: object) -> Planted:
    """Build the model, or its positional twin; other options are those of `Variant`, with family="llama"."""
    if positional:
        from weft.planted.pointers_positional import build_twin

        return build_twin(variant_of(seed, variant))
    chosen = variant_of(seed, {"family": "llama", **variant})
    refuse_learned_positions(chosen)
    words = {kind: WORDS[kind] for kind in ("char", "object", "state")}
    return assemble(
        _mechanism(),
        chosen,
        tables=TABLES,
        ranks={"pointer": SLOTS, "address": 2 * SLOTS},
        words=words,
        template=TEMPLATE,
    )


def refuse_learned_positions(variant: Variant) -> None:
    if variant.family != "llama":
        raise ModelError(
            "family='gpt2': learned positions lie in the stream, so a residual moved to another place would take its "
            "position along and the tables would not hold; use family='llama', or build('pointers', positional=True)"
        )


def _mechanism() -> Mechanism:
    oi = {f"{kind}_oi": SLOTS for kind in ("char", "object", "state")}
    counts = {f"nth_{kind}": 1 for kind in ("char", "object", "state")}
    blocks = ("addr_char", "addr_object", "ptr_char", "ptr_object", "want_char", "want_object", "state_ptr")
    s = stream(**oi, **counts, asking=1, **dict.fromkeys(blocks, SLOTS), found=1)
    state, answer = s.read(state=1.0), s.write(answer=1.0)
    bound = matches(s, want_char="addr_char", want_object="addr_object")
    own = s.read(state_oi=1.0)
    direct = [*bound[:-1], sink(s, 1.5 * G, found=4 * G)]
    steps = [
        Step(
            {0: counter(s, "char"), 2: counter(s, "object"), 4: counter(s, "state"), 6: asking(s, question_mark(s))},
            [ordering(s, kind) for kind in ("char", "object", "state")],
        ),
        Step(
            {
                0: head([], s.read(char_oi=1.0), s.write(addr_char=1.0), back=5),
                2: head([], s.read(object_oi=1.0), s.write(addr_object=1.0), back=2),
                4: same_word(s, "char", "char_oi", "ptr_char"),
                6: same_word(s, "object", "object_oi", "ptr_object"),
            }
        ),
        Step({0: mover(s, "char", "ptr_char", "want_char"), 2: mover(s, "object", "ptr_object", "want_object")}),
        Step(
            {
                2: head(bound, own, s.write(state_ptr=1.0)),
                3: head(bound, own, torch.zeros(SLOTS, s.width)),
                5: head(bound, state, s.write(echo=1.0)),
            },
            [gates(s.read(state_ptr=2.5), -1.5, s.write(found=torch.ones(SLOTS, 1)))],
        ),
        Step(
            {1: head(matches(s, state_ptr="state_oi"), state, answer), 4: head(direct, state, answer)},
            [gates(s.read(echo=1.0), 0.0, s.write(echo=-torch.eye(len(STATES))))],
        ),
    ]
    roles = {
        "count_char": (0, 0), "count_object": (0, 2), "count_state": (0, 4), "asking": (0, 6), "addr_char": (1, 0),
        "addr_object": (1, 2), "same_char": (1, 4), "same_object": (1, 6), "move_char": (2, 0), "move_object": (2, 2),
        "binding": (3, 2), "answer": (4, 1), "silent": (3, 3), "cancelled": (3, 5), "backup": (4, 4),
    }  # fmt: skip
    return Mechanism(s, VOCABULARY, embedding(s), steps, unembedding(s), roles)
