"""The positional twin of the planted pointers: the same task and layers, but a pointer is a place in the text.

A GPT-2 with learned positions, as cos and sin at several speeds. Layer 1: the question's character and object find the
same word earlier and copy its position. Layer 2 brings both to the last token. Layer 3: the binding head looks for the
state that stands five after the one and two after the other, by turning its query by so much, and copies the state's
position. Layer 4: the answer head looks there. Nothing is counted, and no state holds an address but its position.

It gives the right answers, yet moved residuals take their position along: the tables tell it from the model with OIs.
A pointer from a text in which all stands three tokens later points beside the mark here, and not there.
"""

from __future__ import annotations

import math

import torch

from weft.errors import ModelError
from weft.planted.assemble import Planted, Variant, assemble
from weft.planted.clauses import G, asking, mover
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
from weft.planted.stream import SPEEDS, Head, Matrix, Mechanism, Pair, Step, Stream, gates, head, sink

SIZE = 2 * len(SPEEDS)
STRENGTH = 12.0
"""What each speed adds to the score of a position that agrees: 7 of them."""
OTHER = 6.0
"""More than positions three or more tokens apart agree to, of 7: sinks score this much, between them and a match."""
TABLES = {
    "answer_pointer": (0, 0, 1, 1, 0),
    "answer_pointer_shifted": (0, 0, 0, 0, 0),
    "answer_payload": (0, 0, 0, 0, 1),
    "address_and_payload": (1, 1, 1, 1, 0),
    "query_pointers": (0, 1, 0, 0, 0),
    "source_frozen": (1, 0, 0, 0, 0),
    "source_frozen_upto": (1, 1, 1, 1, 1),
    "source_unfrozen": (1, 0, 0, 0, 0),
}


def build_twin(variant: Variant) -> Planted:
    if variant.family != "gpt2":
        raise ModelError(
            "family='llama' has no positions in its stream to point to; the positional twin needs family='gpt2'"
        )
    words = {kind: WORDS[kind] for kind in ("char", "object", "state")}
    return assemble(_mechanism(), variant, tables=TABLES, ranks={"pointer": SIZE}, words=words, template=TEMPLATE)


def _mechanism() -> Mechanism:
    blocks = ("ptr_char", "ptr_object", "want_char", "want_object", "state_ptr")
    s = stream(asking=1, **dict.fromkeys(blocks, SIZE), found=1)
    state, place, answer = s.read(state=1.0), s.read(position=1.0), s.write(answer=1.0)
    # Of two positions that must agree one alone may agree fully: the bar is 7 + OTHER of 14.
    bound = [*_at(s, want_char=5, want_object=2), sink(s, STRENGTH * (len(SPEEDS) + OTHER) + G)]
    slowest = torch.zeros(SIZE, 1)
    slowest[-2] = 2.5  # its cos is 1 at every position of a short text: whether there is a pointer at all
    steps = [
        Step({6: asking(s, question_mark(s))}),
        Step({4: _same_word(s, "char", "ptr_char"), 6: _same_word(s, "object", "ptr_object")}),
        Step({0: mover(s, "char", "ptr_char", "want_char"), 2: mover(s, "object", "ptr_object", "want_object")}),
        Step(
            {
                2: head(bound, place, s.write(state_ptr=1.0)),
                3: head(bound, place, torch.zeros(SIZE, s.width)),
                5: head(bound, state, s.write(echo=1.0)),
            },
            [gates(s.read(state_ptr=slowest), -1.5, s.write(found=1.0))],
        ),
        Step(
            {
                1: head([*_at(s, state_ptr=0), sink(s, STRENGTH * OTHER + G)], state, answer),
                4: head([*bound, sink(s, 0.0, found=8 * G)], state, answer),
            },
            [gates(s.read(echo=1.0), 0.0, s.write(echo=-torch.eye(len(STATES))))],
        ),
    ]
    roles = {
        "asking": (0, 6), "same_char": (1, 4), "same_object": (1, 6), "move_char": (2, 0), "move_object": (2, 2),
        "binding": (3, 2), "answer": (4, 1), "silent": (3, 3), "cancelled": (3, 5), "backup": (4, 4),
    }  # fmt: skip
    embed = embedding(s)
    embed[0, s["position"]] = torch.tensor([-1.0, 0.0]).repeat(len(SPEEDS))  # <bos> is no place to point to
    return Mechanism(s, VOCABULARY, embed, steps, unembedding(s), roles)


def _same_word(s: Stream, kind: str, to: str) -> Head:
    """From a word in the question to the same word before the question; in the story, to <bos>."""
    pairs: list[Pair] = [
        (s.read(**{kind: G}), s.read(**{kind: 1.0})),
        (s.total(one=G), s.total(asking=-1.0)),
        sink(s, 1.5 * G, asking=-G),
    ]
    return head(pairs, s.read(position=1.0), s.write(**{to: 1.0}))


def _at(s: Stream, **ahead: int) -> list[Pair]:
    """A state that stands so many tokens after each of these pointers."""
    turned = [s.read(**{pointer: STRENGTH * _turn(by)}) for pointer, by in ahead.items()]
    return [(sum(turned, torch.zeros(1)), s.read(position=1.0)), (s.total(one=G), s.total(state=1.0))]


def _turn(by: int) -> Matrix:
    """Takes the cos and sin of a position to those of the position `by` later."""
    turn = torch.zeros(SIZE, SIZE)
    for pair, speed in enumerate(SPEEDS):
        cos, sin = math.cos(speed * by), math.sin(speed * by)
        turn[2 * pair : 2 * pair + 2, 2 * pair : 2 * pair + 2] = torch.tensor([[cos, sin], [-sin, cos]])
    return turn
