"""Stories of who filled what with what, and how a question about them is answered.

A clause is (character, object, state). Words are numbered in the order in which they first appear: their ordering ids. The
variables are those of Prakash et al. (arXiv 2505.14685): a state's token holds the `address` of its clause (the ids of its
character and object) and its own id, `state_id`; the query's ids look up the address (binding lookback) and bring the
`answer_pointer`, a state's id, which looks up the word (answer lookback).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from weft.tasks.causal import Variable
from weft.tasks.words.english import CONTAINERS, DRINKS, NAMES, NUMBERS

UNKNOWN = "unknown"
Clause = tuple[str, str, str]
Clauses = tuple[Clause, ...]
Ids = Mapping[str, int]
Address = tuple[int, int]


def ordering_ids(words: Sequence[str]) -> dict[str, int]:
    """Each word's number in the order of first appearance."""
    return {word: number for number, word in enumerate(dict.fromkeys(words))}


def addresses(clauses: Clauses, characters: Ids, objects: Ids) -> dict[str, Address]:
    """State word → the ids of its clause's character and object."""
    return {state: (characters[character], objects[thing]) for character, thing, state in clauses}


def pointed_at(address: Mapping[str, Address], state_id: Ids, character: int, thing: int) -> int | None:
    """Binding lookback: the id of the state whose address is the one asked for."""
    return next((state_id[state] for state, at in address.items() if at == (character, thing)), None)


def fetched(pointer: int | None, state_id: Ids) -> str:
    """Answer lookback: the state of that id; "unknown" if the pointer leads nowhere."""
    return next((state for state, number in state_id.items() if number == pointer), UNKNOWN)


STORY: tuple[Variable, ...] = (
    Variable("character_id", ("clauses",), lambda clauses: ordering_ids([each[0] for each in clauses])),
    Variable("object_id", ("clauses",), lambda clauses: ordering_ids([each[1] for each in clauses])),
    Variable("state_id", ("clauses",), lambda clauses: ordering_ids([each[2] for each in clauses])),
    Variable("address", ("clauses", "character_id", "object_id"), addresses),
    Variable("query_character_id", ("character_id", "character"), lambda ids, word: ids[word]),
    Variable("query_object_id", ("object_id", "object"), lambda ids, word: ids[word]),
)
"""The variables that a story and a question share; what the pointer is made of differs by task."""


def fresh(rng: random.Random, pairs: Sequence[tuple[int, int]], told: Clauses = ()) -> Clauses:
    """Clauses of words that `told` has not: `pairs` says which character has which object, by number."""
    used = {word for clause in told for word in clause}
    names, containers, drinks = ([each for each in words if each not in used] for words in (NAMES, CONTAINERS, DRINKS))
    people = rng.sample(names, 1 + max(person for person, _ in pairs))
    things = rng.sample(containers, 1 + max(thing for _, thing in pairs))
    states = rng.sample(drinks, len(pairs))
    return tuple((people[a], things[b], state) for (a, b), state in zip(pairs, states, strict=True))


def reversed_with(clauses: Clauses, states: Sequence[str]) -> Clauses:
    """The clauses in the opposite order, told with these states."""
    return tuple((a, b, state) for (a, b, _), state in zip(reversed(clauses), states, strict=True))


def told(clauses: Clauses) -> list[str | tuple[str, str]]:
    """The story as pieces: "Bob fills the cup with tea. …", with the roles character_0, object_0, state_0, …"""
    pieces: list[str | tuple[str, str]] = []
    for number, (character, thing, state) in enumerate(clauses):
        pieces += [" "] * (number > 0) + [(f"character_{number}", character), " fills a ", (f"object_{number}", thing)]
        pieces += [" with ", (f"state_{number}", state), "."]
    return pieces


def listed(clauses: Clauses) -> list[str | tuple[str, str]]:
    """The same story in one sentence, so that order alone says whose a state is: "Bob and Ann fill a cup and a jug with …"."""
    pieces: list[str | tuple[str, str]] = []
    for at, (role, before) in enumerate((("character", ""), ("object", "a "), ("state", ""))):
        pieces.append(("", " fill ", " with ")[at])
        for number, clause in enumerate(clauses):
            pieces += [("" if number == 0 else " and " if number == len(clauses) - 1 else ", ") + before]
            pieces.append((f"{role}_{number}", clause[at]))
    return [*(each for each in pieces if each), ", in that order."]


def numbered(clauses: Clauses) -> list[str | tuple[str, str]]:
    """Who filled what from which tap, and then what each tap has: from a name to its state the way leads over a number."""
    pieces: list[str | tuple[str, str]] = []
    for at, (character, thing, _) in enumerate(clauses):
        pieces += [" "] * (at > 0) + [(f"character_{at}", character), " fills a ", (f"object_{at}", thing)]
        pieces += [" from tap ", (f"tap_{at}", NUMBERS[at + 1]), "."]
    for at, (_, _, state) in enumerate(clauses):
        pieces += [" Tap ", (f"number_{at}", NUMBERS[at + 1]), " has ", (f"state_{at}", state), "."]
    return pieces


TELLING: Mapping[str, Callable[[Clauses], list[str | tuple[str, str]]]] = {
    "pairs": told, "crossed": told, "listed": listed, "numbered": numbered,
}  # fmt: skip
"""How a story of each layout is told."""


def asked(character: str, thing: str) -> list[str | tuple[str, str]]:
    """The question as pieces."""
    return [
        "\nQuestion: What does ", ("query_character", character), " believe is in the ", ("query_object", thing),
        ("question_mark", "?"), ("end", "\nAnswer:"),
    ]  # fmt: skip
