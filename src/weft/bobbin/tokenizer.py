"""Bobbin's tokenizer: words of the tasks in pieces of two and three letters, so that most take two or three tokens.

tokenizer = build()                                    # a tokenizers.Tokenizer, the same one every time
tokenizer.encode(" spinach").tokens                    # ['<s>', 'Ġsp', 'ina', 'ch']

WordPiece (the longest piece that fits, from the left) over bytes written as in GPT-2, so every text comes back as it was.
What is said in the tasks' sentences is one token a word; what they are about is cut: nobody knows a word at its first piece.
The pieces of a word in capitals are the capitals of its pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from math import ceil
from typing import Any

from weft.tasks.words import english
from weft.tasks.words.languages import LANGUAGES, nonsense, syllables
from weft.tasks.words.relations import RELATIONS

BOS, EOS, UNKNOWN = "<s>", "</s>", "<unk>"
SPACE = "Ġ"
PIECE = 3
"""Letters of a piece at most, after the first one, which has two."""
_SENTENCES = """
    Q A Options Answer Question Which What Therefore The With Someone When How Is Words English Tavi Moru Selk words same of
    these is a kind first the last that many are any in word to for past gerund plural she verb becomes whose work it
    comparative superlative opposite capitals capital from continent fills with does believe cannot can see what lives city
    and went gave lasted year ended began lists only more list two others among them come if an or first then from tap Tap has
"""
SENTENCES = tuple(dict.fromkeys(_SENTENCES.split()))
"""Words that the sentences of tasks and of the corpus are made of."""


def split(word: str) -> tuple[str, ...]:
    """A word in pieces: two letters, then pieces of about equal length, three letters at most."""
    rest = word[2:]
    count = ceil(len(rest) / PIECE)
    ends = [round(number * len(rest) / count) for number in range(count + 1)] if count else [0]
    return (word[:2], *(rest[a:b] for a, b in pairwise(ends)))


def build() -> Any:
    """The tokenizer: every text begins with "<s>", and no text is lost. Takes a tenth of a second."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {piece: number for number, piece in enumerate(_vocabulary())}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    tokenizer.add_special_tokens([BOS, EOS, UNKNOWN])
    return tokenizer


def _vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [f"{number:02d}" for number in range(100)]
    whole = [*SENTENCES, *english.CATEGORIES, *english.NUMBERS, "unknown", *_plain_short()]
    found = [BOS, EOS, UNKNOWN, *letters, *pairs, *(SPACE + each for each in pairs)]
    found += [form for each in dict.fromkeys(whole) for form in (each, SPACE + each)]
    for pieces in _cut_words():
        found += [SPACE + pieces[0], *pieces[1:], SPACE + pieces[0].upper(), *(each.upper() for each in pieces[1:])]
    found += [split(each)[0] for each in english.NAMES]  # a story opens with one, no space before it
    found += [form for each in _invented() for form in each]
    return list(dict.fromkeys(found))


def _plain_short() -> list[str]:
    """Short words that no task but repetition is about; in capitals too, for those that relations put into capitals."""
    concepts = {*english.CONCEPTS, *english.DRINKS}
    return [each for each in english.SHORT if each not in concepts]


def _cut_words() -> Iterable[tuple[str, ...]]:
    """The words that tasks are about, in pieces; an inflected form has its word's pieces and an ending."""
    lists = (
        english.CONCEPTS, english.NAMES, english.DRINKS, english.CONTAINERS, english.PLACES, english.OBJECTS,
        english.EVENTS,
    )  # fmt: skip
    for words in lists:
        yield from map(split, words)
    for name, relation in RELATIONS.items():
        for word, output in relation.pairs.items():
            yield split(word)
            if output.isupper() or name.startswith("to_") or name == "category":
                continue
            shared = next((n for n in (len(word), len(word) - 1) if n > 2 and output.startswith(word[:n])), 0)
            yield (*split(word[:shared]), output[shared:]) if shared else split(output)


def _invented() -> Iterable[tuple[str, ...]]:
    """The syllables of the three languages: a beginning has a space before it (or begins a nonsense word)."""
    for language in LANGUAGES:
        for concept in english.CONCEPTS:
            first, *others = syllables(language, concept)
            yield (SPACE + first, *others)
    for number in range(256):
        first, last = re.fullmatch(r"(.+?[aeiou])(.+)", nonsense(number)).groups()  # type: ignore[union-attr]
        yield (SPACE + first, last)
