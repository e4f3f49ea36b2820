"""A transformer that follows a pointer to a pointer: what Sally sees is what Ann fills, if Sally watches Ann.

    planted = weft.planted.build("double_pointers")
    watching([("Ann", "tea"), ("Bob", "beer")], [("Zoe", "Bob"), ("Omar", "Ann")], "Omar")      # … Answer: tea

Read `weft.planted.pointers` first; ordering ids (OIs) are found as there, of characters, watchers and states.

Layer 0 counts the words of each kind, and gives each its OI. Another head marks the question.
Layer 1: at each state, (1, 0) writes the OI of its character, five before: its address. At a character who is watched,
(1, 2) writes the OI of the watcher, two before: an address too; and (1, 4) finds the same character in the facts and
writes its OI: a pointer, stored at that address. At the question's watcher, (1, 6) writes the OI it has in the story.
Layer 2: (2, 0) brings that to the last token: a pointer to a pointer.
Layer 3: the first lookback (3, 2) finds who is watched by it, and copies the pointer kept there.
Layer 4: the second lookback (4, 2) finds the state at that address, and copies the state's own OI.
Layer 5: the answer head (5, 1) finds the state with that OI and copies the word. With no match: "unknown".

The order of facts and the order of watchers can be reversed one without the other, and so each pointer is told apart.

Decoys: (4, 3) attends as the second lookback and writes nothing; (4, 5) does too, and copies the state to `echo`, which
the unembedding reads but neurons of layer 5 have wiped by then; (5, 4) goes from the character's address to the word at
once, but only if layer 4 has found no pointer: when the second lookback has been ablated.
"""

from __future__ import annotations

import torch

from weft.planted.assemble import Planted, assemble, variant_of
from weft.planted.clauses import SLOTS, G, asking, counter, matches, mover, ordering, same_word
from weft.planted.pointers import refuse_learned_positions
from weft.planted.story import (
    STATES,
    VOCABULARY,
    WATCHING,
    WORDS,
    embedding,
    question_mark,
    stream,
    unembedding,
)  # fmt: skip
from weft.planted.stream import Mechanism, Step, gates, head, sink

TABLES = {
    "watcher_pointer": (0, 0, 1, 0, 0, 0),
    "character_pointer": (0, 0, 0, 1, 1, 0),
    "both_pointers": (0, 0, 1, 1, 1, 0),
    "answer_payload": (0, 0, 0, 0, 0, 1),
    "watched_address": (0, 1, 1, 0, 0, 0),
    "watched_payload": (0, 1, 1, 0, 0, 0),
    "state_address_and_payload": (0, 1, 1, 1, 1, 0),
    "query_pointer": (0, 1, 0, 0, 0, 0),
    "source_frozen": (1, 0, 0, 0, 0, 0),
    "source_unfrozen": (0, 0, 0, 0, 0, 0),
}
"""By layer, how often interchange gives the counterfactual answer. The last token's stream is taken from a text with the
watchers reversed, the facts, or both, each with fresh states; `watched_…` moves that of the characters who are watched,
with watchers or facts reversed; `source_…` that of the watchers in the story, those watched held fixed or not."""
KINDS = ("char", "watcher", "state")


def build(*, seed: int = 0, **variant: object) -> Planted:
    """Build the model; other options are those of `Variant`, with family="llama"."""
    chosen = variant_of(seed, {"family": "llama", **variant})
    refuse_learned_positions(chosen)
    words = {kind: WORDS[kind] for kind in KINDS}
    return assemble(_mechanism(), chosen, tables=TABLES, ranks={"pointer": SLOTS}, words=words, template=WATCHING)


def _mechanism() -> Mechanism:
    blocks = ("addr_char", "addr_watcher", "points_to", "ptr_watcher", "want_watcher", "want_char", "state_ptr")
    per_kind = {f"{kind}_oi": SLOTS for kind in KINDS} | {f"nth_{kind}": 1 for kind in KINDS}
    s = stream(**per_kind, asking=1, **dict.fromkeys(blocks, SLOTS), found=1)
    state, answer = s.read(state=1.0), s.write(answer=1.0)
    second, own = matches(s, want_char="addr_char"), s.read(state_oi=1.0)
    direct = [*second[:-1], sink(s, 0.5 * G, found=4 * G)]
    steps = [
        Step(
            {0: counter(s, "char"), 2: counter(s, "watcher"), 4: counter(s, "state"), 6: asking(s, question_mark(s))},
            [ordering(s, kind) for kind in KINDS],
        ),
        Step(
            {
                0: head([], s.read(char_oi=1.0), s.write(addr_char=1.0), back=5),
                2: head([], s.read(watcher_oi=1.0), s.write(addr_watcher=1.0), back=2),
                4: same_word(s, "char", "char_oi", "points_to", anywhere=True),
                6: same_word(s, "watcher", "watcher_oi", "ptr_watcher"),
            }
        ),
        Step({0: mover(s, "watcher", "ptr_watcher", "want_watcher")}),
        Step({2: head(matches(s, want_watcher="addr_watcher"), s.read(points_to=1.0), s.write(want_char=1.0))}),
        Step(
            {
                2: head(second, own, s.write(state_ptr=1.0)),
                3: head(second, own, torch.zeros(SLOTS, s.width)),
                5: head(second, state, s.write(echo=1.0)),
            },
            [gates(s.read(state_ptr=2.5), -1.5, s.write(found=torch.ones(SLOTS, 1)))],
        ),
        Step(
            {1: head(matches(s, state_ptr="state_oi"), state, answer), 4: head(direct, state, answer)},
            [gates(s.read(echo=1.0), 0.0, s.write(echo=-torch.eye(len(STATES))))],
        ),
    ]
    roles = {
        "count_char": (0, 0), "count_watcher": (0, 2), "count_state": (0, 4), "asking": (0, 6), "addr_char": (1, 0),
        "addr_watcher": (1, 2), "same_char": (1, 4), "same_watcher": (1, 6), "move_watcher": (2, 0),
        "first_lookback": (3, 2), "second_lookback": (4, 2), "answer": (5, 1),
        "silent": (4, 3), "cancelled": (4, 5), "backup": (5, 4),
    }  # fmt: skip
    return Mechanism(s, VOCABULARY, embedding(s), steps, unembedding(s), roles)
