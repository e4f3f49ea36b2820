"""The words and texts of the planted pointer models.

story([("Bob", "bottle", "beer"), ("Sally", "cup", "tea")], ("Sally", "cup"))      # … Answer: tea
watching([("Ann", "tea"), ("Bob", "beer")], [("Sally", "Ann"), ("Carl", "Bob")], "Sally")      # … Answer: tea
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from weft.planted.stream import Matrix, Stream
from weft.planted.words import BOS, UNKNOWN

CHARACTERS = ("Bob", "Sally", "Ann", "Carl", "Emma", "Noor", "Liam", "Mina")
WATCHERS = ("Zoe", "Omar", "Ines", "Hugo", "Ruth", "Ivan", "Lena", "Kofi")
OBJECTS = ("bottle", "cup", "jar", "mug", "glass", "jug", "flask", "bowl")
STATES = ("beer", "tea", "milk", "wine", "juice", "cider", "cocoa", "water")
FILLER = " It rains."
"""A sentence that says nothing and moves all that follows by three tokens."""
LOGIT = 20.0
_MARKS = ["Story", "Question", "Answer", ":", ".", "?", "\n"]
_WORDS = "fills the with It rains What does believe contains watches see".split()
_KINDS = {"char": CHARACTERS, "watcher": WATCHERS, "object": OBJECTS, "state": STATES}
VOCABULARY = [
    BOS, UNKNOWN, *_MARKS, *(f" {word}" for word in _WORDS), " unknown",
    *(f" {word}" for words in _KINDS.values() for word in words),
]  # fmt: skip
N_OTHERS = VOCABULARY.index(" unknown") + 1
WORDS = {kind: tuple(f" {word}" for word in words) for kind, words in _KINDS.items()}
TEMPLATE = "Story:{sentences}\nQuestion: What does {char} believe the {object} contains?\nAnswer:"
WATCHING = "Story:{sentences}\nQuestion: What does {watcher} see?\nAnswer:"


def story(facts: Sequence[tuple[str, str, str]], asked: tuple[str, str], *, before: str = "") -> str:
    """Facts (character, object, state) in their order, and a question; `before` may be a `FILLER`."""
    told = "".join(f" {char} fills the {thing} with {state}." for char, thing, state in facts)
    return TEMPLATE.format(sentences=before + told, char=asked[0], object=asked[1])


def watching(facts: Sequence[tuple[str, str]], watched: Sequence[tuple[str, str]], asked: str) -> str:
    """Facts (character, state), who watches whom, and the watcher who is asked about."""
    told = "".join(f" {char} fills the cup with {state}." for char, state in facts)
    told += "".join(f" {watcher} watches {char}." for watcher, char in watched)
    return WATCHING.format(sentences=told, watcher=asked)


def stream(**more: int) -> Stream:
    """A block for each kind of word, for the other words, and what a model adds."""
    kinds = {kind: len(words) for kind, words in _KINDS.items()}
    return Stream(**kinds, other=N_OTHERS, answer=len(STATES), echo=len(STATES), **more)


def question_mark(s: Stream) -> Matrix:
    """The column that reads the word "Question"."""
    return s.read(other=torch.eye(N_OTHERS)[:, [VOCABULARY.index("Question")]])


def embedding(s: Stream) -> Matrix:
    rows = torch.zeros(len(VOCABULARY), s.width)
    rows[0, s["bos"]] = 1
    rows[:N_OTHERS, s["other"]] = torch.eye(N_OTHERS)
    start = N_OTHERS
    for kind, words in _KINDS.items():
        rows[start : start + len(words), s[kind]] = torch.eye(len(words))
        start += len(words)
    return rows


def unembedding(s: Stream) -> Matrix:
    """States from `answer` and `echo`; after a colon, "unknown" if there is nothing else to say."""
    rows = torch.zeros(len(VOCABULARY), s.width)
    rows[-len(STATES) :] = s.read(answer=LOGIT, echo=LOGIT).T
    rows[VOCABULARY.index(" unknown"), s["other"].start + VOCABULARY.index(":")] = LOGIT / 2
    return rows
