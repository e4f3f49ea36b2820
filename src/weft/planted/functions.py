"""A transformer that infers a function from examples and applies it, by one head that carries the function.

    planted = weft.planted.build("functions")
    prompt([("red", "blue"), ("cat", "dog")], "sun")      # and so on: the model goes on as the examples do

There are 8 words and 4 functions, permutations that agree on no word. Layer 0 has three heads that look a fixed number
of tokens back: (0, 0) brings to each word the word four before it, which for an answer is its question; (0, 2) brings
to the last token the word it is asked about, three before it; (0, 4) brings to each word whether "A" stands two before
it, so that it is an answer. Neurons of layer 0 then know at each answer which function leads to it: `label`.

Layer 1: the head (1, 1) averages the labels of all answers into `task` at the last token, and neurons look up what
that function makes of the word asked about, if clearly more than half of the labels name it. So the function is a direction,
carried by one head: its mean output triggers the function without any example, if added before the neurons of layer 1.

Decoys in the same places as elsewhere: (1, 0) attends as (1, 1) does and writes nothing; (1, 4) copies the answers to
`echo`, which the unembedding reads too but neurons of layer 2 have wiped by then; (2, 3) carries the labels again, to
a second table in layer 2, only if nothing definite is in `task`: when (1, 1) has been ablated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weft.planted.assemble import Planted, assemble, variant_of
from weft.planted.stream import SHARP, Gates, Matrix, Mechanism, Step, Stream, gates, head, one_hot, sink
from weft.planted.words import BOS, UNKNOWN

WORDS = ("red", "blue", "cat", "dog", "sun", "moon", "key", "box")
SHIFTS = {"next": 1, "second": 2, "third": 3, "opposite": 4}
FUNCTIONS: dict[str, dict[str, str]] = {
    name: {word: WORDS[(i + by) % len(WORDS)] for i, word in enumerate(WORDS)} for name, by in SHIFTS.items()
}
"""`FUNCTIONS["next"]["red"]` is "blue": the words stand in a circle, and each function goes some steps on."""
TEMPLATE = "Q: {x}\nA: {y}\n\n"
MARKS = ["Q", "A", ":", "\n", "\n\n"]
VOCABULARY = [BOS, UNKNOWN, *MARKS, *(f" {word}" for word in WORDS)]
LOGIT = 10.0
GUESS = 4.0
"""What a colon adds to the logit of every word: without examples the model guesses one of them."""
N, K = len(WORDS), len(FUNCTIONS)


def prompt(examples: Sequence[tuple[str, str]], query: str) -> str:
    """Examples and a question, e.g. `prompt([("red", "blue")], "cat")`; at most 14 examples fit."""
    return "".join(TEMPLATE.format(x=x, y=y) for x, y in examples) + f"Q: {query}\nA:"


def build(*, seed: int = 0, **variant: object) -> Planted:
    """Build the model; other options are those of `Variant`."""
    return assemble(
        _mechanism(),
        variant_of(seed, variant),
        tables={"zero_shot_with_vector": (1, 0, 0), "answer": (0, 1, 1)},
        ranks={"function": K},
        words={name: tuple(f" {pairs[word]}" for word in WORDS) for name, pairs in FUNCTIONS.items()}
        | {"inputs": tuple(f" {word}" for word in WORDS)},
        template=TEMPLATE,
    )


def _mechanism() -> Mechanism:
    s = Stream(item=N, other=len(VOCABULARY) - N, source=N, asked=N, labelled=1, label=K, task=K, done=1, spare=K,
               answer=N, echo=N)  # fmt: skip
    is_a = torch.eye(s.size("other"))[:, [VOCABULARY.index("A")]]
    labels = [(s.total(one=SHARP), s.total(labelled=1.0)), sink(s, SHARP / 2)]
    late = [labels[0], sink(s, SHARP / 2, done=3 * SHARP)]
    label, item = s.read(label=1.0), s.read(item=1.0)
    steps = [
        Step(
            {
                0: head([], item, s.write(source=1.0), back=4),
                2: head([], item, s.write(asked=1.0), back=3),
                4: head([], s.read(other=is_a), s.write(labelled=1.0), back=2),
            },
            [_labels(s)],
        ),
        Step(
            {
                1: head(labels, label, s.write(task=1.0)),
                0: head(labels, label, torch.zeros(K, s.width)),
                4: head(labels, item, s.write(echo=1.0)),
            },
            [_lookup(s, "task"), gates(s.read(task=2.5), -1.5, s.write(done=torch.ones(K, 1)))],
        ),
        Step(
            {3: head(late, label, s.write(spare=1.0))},
            [_lookup(s, "spare"), gates(s.read(echo=1.0), 0.0, s.write(echo=-1.0))],
        ),
    ]
    roles = {
        "source": (0, 0), "asked": (0, 2), "labelled": (0, 4),
        "function": (1, 1), "silent": (1, 0), "cancelled": (1, 4), "backup": (2, 3),
    }  # fmt: skip
    return Mechanism(s, VOCABULARY, _embedding(s), steps, _unembedding(s), roles)


def _entries() -> tuple[Matrix, Matrix, Matrix]:
    """A row for each word under each function: the function, the word, and what it becomes."""
    entries = [(k, i, (i + by) % N) for k, by in enumerate(SHIFTS.values()) for i in range(N)]
    function, x, y = (list(column) for column in zip(*entries, strict=True))
    return one_hot(function, K), one_hot(x, N), one_hot(y, N)


def _labels(s: Stream) -> Gates:
    """This word AND that source AND an answer: only one function leads from one to the other."""
    function, x, y = _entries()
    reads = s.read(source=2 * x.T, item=2 * y.T, labelled=torch.full((1, len(x)), 2.0))
    return gates(reads, -5.0, s.write(label=function))


def _lookup(s: Stream, task: str) -> Gates:
    """This function, by clearly more than half, AND asked about this word."""
    function, x, y = _entries()
    return gates(s.read(**{task: 2.5 * function.T}, asked=2.5 * x.T), -4.0, s.write(answer=y))


def _embedding(s: Stream) -> Matrix:
    rows = torch.zeros(len(VOCABULARY), s.width)
    rows[0, s["bos"]] = 1
    rows[:-N, s["other"]] = torch.eye(len(VOCABULARY) - N)
    rows[-N:, s["item"]] = torch.eye(N)
    return rows


def _unembedding(s: Stream) -> Matrix:
    rows = torch.zeros(len(VOCABULARY), s.width)
    rows[-N:] = s.read(answer=LOGIT, echo=LOGIT).T
    rows[-N:, s["other"].start + VOCABULARY.index(":")] = GUESS
    return rows
