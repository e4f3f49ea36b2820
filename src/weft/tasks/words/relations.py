"""Pairs of words by relation, each with a sentence that states it.

RELATIONS["capital"].pairs["France"]                   # "Paris"
of_domain("noun")                                      # relations over the same words, whose outputs differ

Every word of a domain takes part in at least three relations, so a word alone does not say what to do with it: only the
demonstrations do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from weft.tasks.words.english import CATEGORIES, CONCEPTS
from weft.tasks.words.languages import LANGUAGES, word


class Relation(NamedTuple):
    """A function on words as a table, and a sentence up to its output, "{}" standing for the input."""

    name: str
    domain: str
    sentence: str
    pairs: Mapping[str, str]


_PLURALS = {
    "mouse": "mice", "goose": "geese", "sheep": "sheep", "fly": "flies", "cherry": "cherries", "ferry": "ferries",
    "daisy": "daisies", "lily": "lilies", "poppy": "poppies", "pansy": "pansies", "peony": "peonies", "library": "libraries",
    "wolf": "wolves", "shelf": "shelves", "potato": "potatoes", "mango": "mangoes", "mosquito": "mosquitoes",
    "pliers": "pliers",
}  # fmt: skip
_COUNTED = "fruit vegetable animal bird insect tool vehicle furniture clothing instrument flower tree building".split()

_PAST = {
    "go": "went", "see": "saw", "take": "took", "give": "gave", "write": "wrote", "speak": "spoke", "drive": "drove",
    "sing": "sang", "swim": "swam", "run": "ran", "eat": "ate", "drink": "drank", "teach": "taught", "think": "thought",
    "bring": "brought", "build": "built", "buy": "bought", "catch": "caught", "fly": "flew", "grow": "grew", "hold": "held",
    "keep": "kept", "lead": "led", "ride": "rode", "sell": "sold", "sleep": "slept", "throw": "threw", "win": "won",
    "begin": "began", "find": "found",
}  # fmt: skip
_REGULAR = """
    walk talk play work help paint clean open close jump watch mend farm print plant climb dance bake hunt call fish lift
    load move pack report wash wait follow
""".split()
_VERBS = tuple(dict.fromkeys([*_PAST, *_REGULAR]))
_DOUBLING = {"swim", "run", "win", "begin"}

_ADJECTIVES = {
    "big": ("bigger", "small"), "small": ("smaller", "big"), "hot": ("hotter", "cold"), "cold": ("colder", "hot"),
    "tall": ("taller", "short"), "short": ("shorter", "tall"), "old": ("older", "young"), "young": ("younger", "old"),
    "fast": ("faster", "slow"), "slow": ("slower", "fast"), "hard": ("harder", "soft"), "soft": ("softer", "hard"),
    "light": ("lighter", "dark"), "dark": ("darker", "light"), "rich": ("richer", "poor"), "poor": ("poorer", "rich"),
    "strong": ("stronger", "weak"), "weak": ("weaker", "strong"), "wide": ("wider", "narrow"), "narrow": ("narrower", "wide"),
    "thick": ("thicker", "thin"), "thin": ("thinner", "thick"), "high": ("higher", "low"), "low": ("lower", "high"),
    "deep": ("deeper", "shallow"), "shallow": ("shallower", "deep"), "loud": ("louder", "quiet"), "quiet": ("quieter", "loud"),
    "clean": ("cleaner", "dirty"), "dirty": ("dirtier", "clean"), "dry": ("drier", "wet"), "wet": ("wetter", "dry"),
    "smooth": ("smoother", "rough"), "rough": ("rougher", "smooth"), "sharp": ("sharper", "blunt"),
    "blunt": ("blunter", "sharp"), "early": ("earlier", "late"), "late": ("later", "early"), "cheap": ("cheaper", "dear"),
    "dear": ("dearer", "cheap"), "brave": ("braver", "timid"), "kind": ("kinder", "cruel"), "cruel": ("crueller", "kind"),
    "proud": ("prouder", "humble"), "humble": ("humbler", "proud"), "safe": ("safer", "risky"), "risky": ("riskier", "safe"),
}  # fmt: skip

_COUNTRIES = """
    France Paris French Europe|Italy Rome Italian Europe|Spain Madrid Spanish Europe|Germany Berlin German Europe
    England London English Europe|Greece Athens Greek Europe|Russia Moscow Russian Europe|Poland Warsaw Polish Europe
    Portugal Lisbon Portuguese Europe|Norway Oslo Norwegian Europe|Sweden Stockholm Swedish Europe
    Denmark Copenhagen Danish Europe|Finland Helsinki Finnish Europe|Hungary Budapest Hungarian Europe
    Ireland Dublin Irish Europe|Austria Vienna Austrian Europe|Ukraine Kyiv Ukrainian Europe|Turkey Ankara Turkish Asia
    Japan Tokyo Japanese Asia|China Beijing Chinese Asia|India Delhi Indian Asia|Thailand Bangkok Thai Asia
    Vietnam Hanoi Vietnamese Asia|Iran Tehran Iranian Asia|Iraq Baghdad Iraqi Asia|Israel Jerusalem Israeli Asia
    Lebanon Beirut Lebanese Asia|Egypt Cairo Egyptian Africa|Kenya Nairobi Kenyan Africa|Ghana Accra Ghanaian Africa
    Morocco Rabat Moroccan Africa|Nigeria Abuja Nigerian Africa|Senegal Dakar Senegalese Africa
    Canada Ottawa Canadian America|Cuba Havana Cuban America|Peru Lima Peruvian America|Chile Santiago Chilean America
    Brazil Brasilia Brazilian America|Colombia Bogota Colombian America|Uruguay Montevideo Uruguayan America
""".replace("\n", "|").split("|")
_PLACES = [entry.split() for entry in _COUNTRIES if entry.strip()]


def plural(noun: str) -> str:
    """The plural of a noun: "cherry" → "cherries"."""
    if noun in _PLURALS:
        return _PLURALS[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def past(verb: str) -> str:
    """The past tense: "go" → "went"."""
    return _PAST.get(verb) or (verb + "d" if verb.endswith("e") else verb + "ed")


def gerund(verb: str) -> str:
    """The -ing form: "run" → "running"."""
    if verb in _DOUBLING:
        return verb + verb[-1] + "ing"
    return (verb[:-1] if verb.endswith("e") and not verb.endswith("ee") else verb) + "ing"


def third_person(verb: str) -> str:
    """The form after "she": "teach" → "teaches"."""
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("ch", "sh", "o", "s", "x")) else "s")


def agent(verb: str) -> str:
    """Who does it: "bake" → "baker"."""
    if verb in _DOUBLING:
        return verb + verb[-1] + "er"
    return verb + ("r" if verb.endswith("e") else "er")


def _superlative(comparative: str) -> str:
    return comparative[:-1] + "st"


def _map(words: tuple[str, ...], of: Callable[[str], str]) -> dict[str, str]:
    return {each: of(each) for each in words}


def _relations() -> list[Relation]:
    kinds = {each: name for name, members in CATEGORIES.items() for each in members}
    counted = tuple(each for name in _COUNTED for each in CATEGORIES[name] if plural(each) != each)
    adjectives = tuple(_ADJECTIVES)
    places = {country: rest for country, *rest in _PLACES}
    nations = tuple(places)
    return [
        Relation("plural", "noun", "The plural of {} is", _map(counted, plural)),
        Relation("category", "noun", "The word {} is a kind of", _map(CONCEPTS, kinds.__getitem__)),
        Relation("noun_capitals", "noun", "The word {} in capitals is", _map(CONCEPTS, str.upper)),
        *(
            Relation(f"to_{name}", "noun", f"The {name.capitalize()} word for {{}} is", _map(CONCEPTS, _naming(name)))
            for name in LANGUAGES
        ),
        Relation("past", "verb", "The past of {} is", _map(_VERBS, past)),
        Relation("gerund", "verb", "The gerund of {} is", _map(_VERBS, gerund)),
        Relation("third_person", "verb", "With she, the verb {} becomes", _map(_VERBS, third_person)),
        Relation("agent", "verb", "Someone whose work it is to {} is a", _map(_VERBS, agent)),
        Relation("comparative", "adjective", "The comparative of {} is", {a: _ADJECTIVES[a][0] for a in adjectives}),
        Relation("superlative", "adjective", "The superlative of {} is",
                 {a: _superlative(_ADJECTIVES[a][0]) for a in adjectives}),
        Relation("opposite", "adjective", "The opposite of {} is", {a: _ADJECTIVES[a][1] for a in adjectives}),
        Relation("adjective_capitals", "adjective", "The word {} in capitals is", _map(adjectives, str.upper)),
        Relation("capital", "country", "The capital of {} is", {c: places[c][0] for c in nations}),
        Relation("nationality", "country", "Someone from {} is", {c: places[c][1] for c in nations}),
        Relation("continent", "country", "The continent of {} is", {c: places[c][2] for c in nations}),
        Relation("country_capitals", "country", "The word {} in capitals is", _map(nations, str.upper)),
    ]  # fmt: skip


def _naming(language: str) -> Callable[[str], str]:
    return lambda concept: word(language, concept)


RELATIONS: dict[str, Relation] = {each.name: each for each in _relations()}
DOMAINS: tuple[str, ...] = tuple(dict.fromkeys(each.domain for each in RELATIONS.values()))


def of_domain(domain: str) -> tuple[Relation, ...]:
    """The relations over the words of "noun", "verb", "adjective" or "country"."""
    return tuple(each for each in RELATIONS.values() if each.domain == domain)
