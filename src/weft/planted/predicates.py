"""A transformer that answers "which of these is a fruit?", by one head that filters.

    planted = weft.planted.build("predicates")
    prompt(["apple", "hammer", "robin"], "tool")      # the model goes on with " hammer"

Every item's token embeds as which item it is and of which category. Layer 0: the mover (0, 0) looks for the word that
names a category and copies it, at every token after it, to the block `asked`. Layer 1: the filter (1, 2) compares
`asked` in its query with the items' category in its keys, and copies the item it finds to `answer`, which the
unembedding reads. So the predicate is in the filter's query at the last token: put there the query of another question,
and that question is answered. In the mover's query there is nothing of it, though all of it passes through its output.

The eager twin (eager=True) is asked first and lists the items after. The mover has then brought the question to each
item, where neurons of layer 0 set a flag if asked and category agree; the head (1, 2) looks for the flag, whatever its
query's token. There no query matters, and an item's flag decides.

Decoys: a head that attends as the filter does and writes nothing; one that copies the item to `echo`, which the
unembedding reads too but neurons of layer 2 have wiped by then; and in layer 2 a filter that acts only if nothing
definite is in `answer` yet: when the first has been ablated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weft.planted.assemble import Planted, assemble, variant_of
from weft.planted.stream import SHARP, Gates, Matrix, Mechanism, Pair, Step, Stream, gates, head, one_hot, sink
from weft.planted.words import BOS, UNKNOWN

CATEGORIES: dict[str, tuple[str, ...]] = {
    "fruit": tuple("apple pear plum cherry lemon mango peach grape".split()),
    "tool": tuple("hammer saw drill wrench chisel pliers shovel rake".split()),
    "bird": tuple("robin eagle heron sparrow crow swan owl finch".split()),
    "vehicle": tuple("truck bus tram bicycle ferry taxi van scooter".split()),
    "metal": tuple("iron copper zinc nickel silver gold lead cobalt".split()),
    "drink": tuple("tea coffee milk juice cider cocoa water wine".split()),
    "fabric": tuple("cotton linen silk wool velvet denim satin felt".split()),
    "dance": tuple("waltz tango polka rumba samba salsa foxtrot minuet".split()),
}
ITEMS = [item for items in CATEGORIES.values() for item in items]
QUESTION = "Which among these objects mentioned above is a {category}?"
TEMPLATE = "Options: {options}.\n" + QUESTION + "\nAnswer:"
EAGER_TEMPLATE = "Which among these objects is a {category}?\nOptions: {options}.\nAnswer:"
OTHERS = "Options Which among these objects mentioned above is a Answer".split()
MARKS = [":", ",", ".", "?", "\n"]
VOCABULARY = [
    BOS, UNKNOWN, *MARKS, *OTHERS, *(f" {word}" for word in OTHERS), *(f" {name}" for name in CATEGORIES),
    *(f" {item}" for item in ITEMS),
]  # fmt: skip
LOGIT = 12.0


def prompt(items: Sequence[str], category: str, *, eager: bool = False) -> str:
    """A list and a question, e.g. `prompt(["apple", "saw", "tea"], "tool")`; the eager twin has the question first."""
    return (EAGER_TEMPLATE if eager else TEMPLATE).format(options=", ".join(items), category=category)


def build(*, seed: int = 0, eager: bool = False, **variant: object) -> Planted:
    """Build the model, or its eager twin; other options are those of `Variant`."""
    never, first = (0, 0, 0), (1, 0, 0)
    tables = {"asked": never if eager else first, "residual_swap": first if eager else never, "answer": (0, 1, 1)}
    words = {name: tuple(f" {item}" for item in items) for name, items in CATEGORIES.items()}
    return assemble(
        _mechanism(eager),
        variant_of(seed, variant),
        tables=tables,
        ranks={"predicate": len(CATEGORIES)},
        words=words,
        template=EAGER_TEMPLATE if eager else TEMPLATE,
    )


def _mechanism(eager: bool) -> Mechanism:
    n, k = len(ITEMS), len(CATEGORIES)
    stream = Stream(item=n, kind=k, word=k, other=len(VOCABULARY) - n - k, asked=k, flag=1, answer=n, echo=n, done=1)
    found = [_eager_search(stream) if eager else _search(stream)]
    attends = [*found, sink(stream, SHARP / 2)]
    value, answer, echo = stream.read(item=1.0), stream.write(answer=1.0), stream.write(echo=1.0)
    mover = [(stream.total(one=SHARP), stream.total(word=1.0)), sink(stream, SHARP / 2)]
    spare = [*found, sink(stream, SHARP / 2, done=3 * SHARP)]
    steps = [
        Step({0: head(mover, stream.read(word=1.0), stream.write(asked=1.0))}, [_flags(stream)] if eager else []),
        Step(
            {
                2: head(attends, value, answer),
                3: head(attends, value, torch.zeros_like(answer)),
                5: head(attends, value, echo),
            },
            [gates(stream.read(answer=2.5), -1.5, stream.write(done=torch.ones(n, 1)))],
        ),
        Step({1: head(spare, value, answer)}, [gates(stream.read(echo=1.0), 0.0, stream.write(echo=-1.0))]),
    ]
    roles = {"mover": (0, 0), "filter": (1, 2), "silent": (1, 3), "cancelled": (1, 5), "backup": (2, 1)}
    return Mechanism(stream, VOCABULARY, _embedding(stream), steps, _unembedding(stream), roles)


def _search(stream: Stream) -> Pair:
    """What is asked, against each item's category."""
    return stream.read(asked=SHARP), stream.read(kind=1.0)


def _eager_search(stream: Stream) -> Pair:
    return stream.total(one=SHARP), stream.total(flag=1.0)


def _flags(stream: Stream) -> Gates:
    """One neuron a category: asked AND of this kind."""
    return gates(stream.read(asked=2.0, kind=2.0), -3.0, stream.write(flag=torch.ones(stream.size("kind"), 1)))


def _embedding(stream: Stream) -> Matrix:
    n, k = len(ITEMS), len(CATEGORIES)
    rows = torch.zeros(len(VOCABULARY), stream.width)
    rows[0, stream["bos"]] = 1
    rows[:-n, stream["other"]] = torch.eye(len(VOCABULARY) - n)[:, : stream.size("other")]
    rows[-n - k : -n, stream["word"]] = torch.eye(k)
    rows[-n:, stream["item"]] = torch.eye(n)
    rows[-n:, stream["kind"]] = one_hot([kind for kind, items in enumerate(CATEGORIES.values()) for _ in items], k)
    return rows


def _unembedding(stream: Stream) -> Matrix:
    rows = torch.zeros(len(VOCABULARY), stream.width)
    rows[-len(ITEMS) :] = stream.read(answer=LOGIT, echo=LOGIT).T
    return rows
