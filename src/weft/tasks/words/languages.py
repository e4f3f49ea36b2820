"""Three small invented languages that name the same concepts, with words of two or three syllables.

word("tavi", "apple"), word("moru", "apple")           # their words for one concept
categories("selk")                                     # category → its words, as CATEGORIES has them in English

A word is a beginning, for some a middle, and an ending. Each beginning and each ending is shared by about fourteen words
of many categories, so nobody knows what a word means, nor what kind of thing it names, before its last syllable; and what
is alike in two languages is the concept alone.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from weft.tasks.words.english import CATEGORIES, CONCEPTS


class _Language(NamedTuple):
    beginnings: tuple[str, ...]
    middles: tuple[str, ...]
    endings: tuple[str, ...]
    step: int  # odd, so that concept · step + offset runs through all 256 pairs once
    offset: int


def _sixteen(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_LANGUAGES = {
    "tavi": _Language(
        _sixteen("ta ve ki lu mo na ri so fa ge bi du pa ze jo li"),
        _sixteen("ra no me ti"),
        _sixteen("vil nan rok sem tal dis lum por ket fin gas mur bel zan hop rud"),
        step=77,
        offset=13,
    ),
    "moru": _Language(
        _sixteen("bro cha dre fli gru kwa pli sho sna stu tre thi vra whe yu zwi"),
        _sixteen("do ga lo pe"),
        _sixteen("ba cu da fo gi ha ku ma ne po qua ru sa tu wo xi"),
        step=45,
        offset=101,
    ),
    "selk": _Language(
        _sixteen("ark bon cel dom elt fers gol hask ilm jen kurt lemb nosk olp rint surm"),
        _sixteen("e ou ai u"),
        _sixteen("da fing gor hes jak lin mond neth pus quen rast sko tyr vash wick zo"),
        step=109,
        offset=200,
    ),
}
LANGUAGES: tuple[str, ...] = tuple(_LANGUAGES)
ENGLISH = "english"


@cache
def syllables(language: str, concept: str) -> tuple[str, ...]:
    """The parts of a concept's word: a beginning, for every third concept a middle, and an ending."""
    of = _LANGUAGES[language]
    place = CONCEPTS.index(concept)
    pair = (place * of.step + of.offset) % 256
    middle = (of.middles[place // 3 % 4],) if place % 3 == 0 else ()
    return (of.beginnings[pair // 16], *middle, of.endings[pair % 16])


def word(language: str, concept: str) -> str:
    """A concept's word in an invented language, or itself in "english"."""
    return concept if language == ENGLISH else "".join(syllables(language, concept))


def categories(language: str) -> dict[str, tuple[str, ...]]:
    """CATEGORIES with the words of an invented language; the categories keep their English names."""
    return {name: tuple(word(language, each) for each in members) for name, members in CATEGORIES.items()}


def nonsense(number: int) -> str:
    """A pronounceable word that means nothing in any of the languages: beginning of one, ending of another."""
    return _LANGUAGES["moru"].beginnings[number % 16] + _LANGUAGES["tavi"].endings[number // 16 % 16]
