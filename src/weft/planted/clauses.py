"""What the pointer models share: words of a story, counted, named again in a question, and looked up.

A word that names something (a character, an object, a state) has an ordering id, OI for short: 1 for the first of its
kind in the story, 2 for the second. It is found by counting: a head that attends alike to <bos> and to every word of the
kind so far leaves 1/2 on <bos> at the first and 1/3 at the second; neurons tell these apart.
"""

from __future__ import annotations

import torch

from weft.planted.stream import SHARP, Gates, Head, Matrix, Pair, Stream, gates, head, sink

SLOTS = 2
OUTWEIGHS = 40.0
"""More than any count can give a neuron of `ordering`: so it is silent at words of another kind, and in the question."""
G = SHARP


def counter(s: Stream, kind: str) -> Head:
    """Writes the share of <bos> among <bos> and all words of this kind so far into the block `nth_kind`."""
    alike = [(s.total(one=G), s.total(**{kind: 1.0, "bos": 1.0}))]
    return head(alike, s.read(bos=1.0), s.write(**{f"nth_{kind}": 1.0}))


def ordering(s: Stream, kind: str) -> Gates:
    """At the words of this kind, outside the question, their OI in the block `kind_oi`.

    For each OI two neurons rise shortly one after the other where the share of <bos> passes a threshold, so that their
    difference is 0 or 1. What passes the threshold of 1 passes that of 2 as well, hence it takes 1 from there.
    """
    reads, biases, outs = [], [], []
    for slot in range(SLOTS):
        share, next_share = 1 / (slot + 2), 1 / (slot + 3)
        threshold, steep = (share + next_share) / 2, 3 / (share - next_share)
        named = torch.full((s.size(kind), 1), OUTWEIGHS)
        weights = {f"nth_{kind}": torch.full((1, 1), steep), kind: named, "asking": torch.full((1, 1), -OUTWEIGHS)}
        passed = torch.eye(SLOTS + 1)[slot : slot + 1] - torch.eye(SLOTS + 1)[slot + 1 : slot + 2]
        for later, sign in ((0.5, 1.0), (-0.5, -1.0)):
            reads.append(s.read(**weights))
            biases.append(later - steep * threshold - OUTWEIGHS)
            outs.append(s.write(**{f"{kind}_oi": sign * passed[:, :SLOTS]}))
    return gates(torch.cat(reads, 1), torch.tensor(biases), torch.cat(outs))


def asking(s: Stream, question: Matrix) -> Head:
    """Sets the flag `asking` from the word "Question" on; `question` is the column that reads that word."""
    return head([(s.total(one=G), question), sink(s, G / 2)], question, s.write(asking=1.0))


def same_word(s: Stream, kind: str, copied: str, to: str, *, anywhere: bool = False) -> Head:
    """From a word in the question, or `anywhere`, to the same word where it has an OI: copies `copied` to `to`."""
    pairs: list[Pair] = [
        (s.read(**{kind: G}), s.read(**{kind: 1.0})),
        (s.total(one=G), s.total(**{f"{kind}_oi": 1.0})),
        sink(s, 1.5 * G) if anywhere else sink(s, 2.5 * G, asking=-G),
    ]
    return head(pairs, s.read(**{copied: 1.0}), s.write(**{to: 1.0}))


def mover(s: Stream, kind: str, copied: str, to: str) -> Head:
    """From all that follows, to the word of this kind in the question."""
    pairs: list[Pair] = [(s.total(one=G), s.total(**{kind: 1.0, "asking": 1.0})), sink(s, 1.5 * G)]
    return head(pairs, s.read(**{copied: 1.0}), s.write(**{to: 1.0}))


def matches(s: Stream, **addresses: str) -> list[Pair]:
    """Pointers against addresses: `matches(s, want_char="addr_char")`; all must agree, or it is <bos>."""
    found = [(s.read(**{want: G}), s.read(**{address: 1.0})) for want, address in addresses.items()]
    return [*found, sink(s, (len(found) - 0.5) * G)]
