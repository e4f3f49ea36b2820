"""A transformer that copies by two routes: one token at a time, or the meaning of a whole word.

    planted = weft.planted.build("dual_route")
    translation(["water", "bread"], "English", "Italian", upto=1)     # the model goes on with " acq", then with "ua"

A word has two tokens, and names one of 8 concepts in one of 3 languages. A token is written in the stream as a code of
two digits, a one in each; the unembedding reads the code in `answer`.

Layer 0: (0, 0) brings to each token the one before it, (0, 2) the one two before it, and (0, 4) the language named
last. Neurons know a word by its two tokens and write its concept at the second: `concept`.
Layer 1: the token head (1, 1) looks for the token that followed what stands here, and copies its code to `answer`. The
concept head (1, 3) looks at the same place further on, for the end of a word that followed what stands here, and copies
its concept to `next_concept`. Neurons that know concept and language write the word's first token, twice as strongly.
Layer 2: the spell-out head (2, 0) brings `next_concept` from one token back to `spelling`, and neurons that know it and
the word's first token write the word's second. So what the concept head does at one token shows in the next.

The unembedding also reads `next_concept`, half as strongly: it raises the first token of the word in every language.
That is what the model says when it knows no language, and what a concept lens shows.

Decoys: (1, 2) attends as the concept head and writes nothing; (1, 5) does too, and copies the token there to `echo`,
which the unembedding reads but neurons of layer 2 have wiped by then; (2, 4) does what the token head does, but only if
nothing definite is in `answer` yet: when the token head has been ablated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weft.planted.assemble import Planted, assemble, variant_of
from weft.planted.stream import SHARP, Gates, Matrix, Mechanism, Pair, Step, Stream, gates, head, one_hot, sink
from weft.planted.words import BOS, UNKNOWN

LANGUAGES: dict[str, tuple[str, ...]] = {
    "English": tuple("wat-er bre-ad hou-se nig-ht fie-ld sto-ne win-ter hea-rt".split()),
    "Italian": tuple("acq-ua pan-e cas-a not-te cam-po pie-tra inv-erno cuo-re".split()),
    "German": tuple("Was-ser Br-ot Hau-s Na-cht Fel-d Ste-in Wi-nter Her-z".split()),
}
"""The same concepts in the same order; the hyphen is where a word is cut into its two tokens."""
CONCEPTS = tuple(word.replace("-", "") for word in LANGUAGES["English"])
CUT = [tuple(word.split("-")) for words in LANGUAGES.values() for word in words]
NUMBERS = [f" {i}" for i in range(1, 9)]
FILLERS = """
    one two red blue dog bird key box moon star lamp desk road hill lake ship gate ring drum flag coin salt leaf seed
    tent rope fork plum cork glue silk mint clay foam dust yarn jar kit lid mug
""".split()
"""Words of a single token that mean nothing to the model."""
VOCABULARY = [
    BOS, UNKNOWN, "\n", ":", *LANGUAGES, *NUMBERS, *(f" {word}" for word in FILLERS),
    *(f" {first}" for first, _ in CUT), *(second for _, second in CUT),
]  # fmt: skip
BASE = 11
"""Of the two digits of a token's code."""
LOGIT = 8.0
G, C, W = SHARP, len(CONCEPTS), len(CUT)


def translation(words: Sequence[str], source: str, target: str, upto: int | None = None) -> str:
    """A numbered list of concepts in one language, then in the other, up to the number of item `upto`."""
    upto = len(words) - 1 if upto is None else upto
    lines = [f"{n} {word_in(word, source)}" for n, word in enumerate(words, 1)]
    done = [f" {n} {word_in(word, target)}" for n, word in enumerate(words[:upto], 1)]
    return f"{source}: {' '.join(lines)}\n{target}:{''.join(done)} {upto + 1}"


def word_in(concept: str, language: str) -> str:
    """How a language says it, e.g. `word_in("water", "Italian")` is "acqua"."""
    return LANGUAGES[language][CONCEPTS.index(concept)].replace("-", "")


def build(*, seed: int = 0, **variant: object) -> Planted:
    """Build the model; other options are those of `Variant`."""
    forms = {name: tuple(" " + word.replace("-", "") for word in words) for name, words in LANGUAGES.items()}
    return assemble(
        _mechanism(),
        variant_of(seed, variant),
        tables={"concept_at_word_end": (1, 0, 0), "next_concept": (0, 1, 0), "next_token": (0, 1, 1)},
        ranks={"concept": C},
        words={**forms, "fillers": tuple(f" {word}" for word in FILLERS)},
        template="{source}: 1 {word}\n{target}: 1",
    )


def _mechanism() -> Mechanism:
    two = 2 * BASE
    s = Stream(token=two, language=len(LANGUAGES), first=1, before=two, before2=two, tongue=len(LANGUAGES), concept=C,
               next_concept=C, spelling=C, done=1, answer=two, echo=two)  # fmt: skip
    token, meaning = s.read(token=1.0), s.read(concept=1.0)
    languages = [(s.total(one=1000.0), s.total(language=1.0)), sink(s, 500.0)]
    follows = (s.read(token=G), s.read(before=1.0))
    ends = _follows_word(s)
    steps = [
        Step(
            {
                0: head([], token, s.write(before=1.0), back=1),
                2: head([], token, s.write(before2=1.0), back=2),
                4: head(languages, s.read(language=1.0), s.write(tongue=1.0), latest=True),
            },
            [_meanings(s)],
        ),
        Step(
            {
                1: head([follows, sink(s, 1.5 * G)], token, s.write(answer=1.0)),
                3: head(ends, meaning, s.write(next_concept=1.0)),
                2: head(ends, meaning, torch.zeros(C, s.width)),
                5: head(ends, token, s.write(echo=1.0)),
            },
            [_first_tokens(s), gates(s.read(answer=2.5), -1.5, s.write(done=torch.full((two, 1), 0.5)))],
        ),
        Step(
            {
                0: head([], s.read(next_concept=1.0), s.write(spelling=1.0), back=1),
                4: head([follows, sink(s, 1.5 * G, done=4 * G)], token, s.write(answer=1.0)),
            },
            [_second_tokens(s), gates(s.read(echo=1.0), 0.0, s.write(echo=-1.0))],
        ),
    ]
    roles = {
        "before": (0, 0), "before2": (0, 2), "language": (0, 4), "token": (1, 1), "concept": (1, 3), "spell": (2, 0),
        "silent": (1, 2), "cancelled": (1, 5), "backup": (2, 4),
    }  # fmt: skip
    return Mechanism(s, VOCABULARY, _embedding(s), steps, _unembedding(s), roles)


def codes() -> Matrix:
    """For each token its two digits, a one in each; <bos> has none."""
    ids = range(len(VOCABULARY))
    rows = torch.cat([one_hot([i // BASE for i in ids], BASE), one_hot([i % BASE for i in ids], BASE)], 1)
    rows[0] = 0
    return rows


def _words() -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """A row for each word: the codes of its two tokens, its concept and its language."""
    of = codes()
    concepts, languages = [w % C for w in range(W)], [w // C for w in range(W)]
    return of[-2 * W : -W], of[-W:], one_hot(concepts, C), one_hot(languages, len(LANGUAGES))


def _follows_word(s: Stream) -> list[Pair]:
    """What stands two before is what stands here, AND a word ends there."""
    here = (s.read(token=G), s.read(before2=1.0))
    return [here, (s.total(one=2 * G), s.total(concept=1.0)), sink(s, 3.5 * G)]


def _meanings(s: Stream) -> Gates:
    """The word's first token before AND its second here."""
    first, second, concept, _ = _words()
    return gates(s.read(before=2 * first.T, token=2 * second.T), -7.0, s.write(concept=concept))


def _first_tokens(s: Stream) -> Gates:
    """This concept is next AND this is the language, AND NOT in the midst of a word: its first token."""
    first, _, concept, language = _words()
    reads = s.read(next_concept=2 * concept.T, tongue=2 * language.T, first=torch.full((1, W), -2.0))
    return gates(reads, -3.0, s.write(answer=2 * first))


def _second_tokens(s: Stream) -> Gates:
    """This concept is being spelled AND this is the word's first token: its second."""
    first, second, concept, _ = _words()
    return gates(s.read(spelling=4 * concept.T, token=2 * first.T), -7.0, s.write(answer=2 * second))


def _embedding(s: Stream) -> Matrix:
    rows = codes() @ s.write(token=1.0)
    rows[0, s["bos"]] = 1
    start = VOCABULARY.index("English")
    rows[start : start + len(LANGUAGES), s["language"]] = torch.eye(len(LANGUAGES))
    rows[-2 * W : -W, s["first"]] = 1
    return rows


def _unembedding(s: Stream) -> Matrix:
    rows = codes() @ s.read(answer=LOGIT, echo=LOGIT).T
    _, _, concept, _ = _words()
    rows[-2 * W : -W] += concept @ s.read(next_concept=LOGIT / 2).T
    return rows
