"""Causal models against answers worked out from the prompts' text alone, and interchanges against the papers' tables."""

from __future__ import annotations

import re

import pytest

import weft
from weft import tasks
from weft.tasks.words.english import CATEGORIES, NUMBERS
from weft.tasks.words.languages import LANGUAGES, word
from weft.tasks.words.relations import RELATIONS


def both(task: tasks.Task, n: int = 60) -> list[tuple[str, str]]:
    batch = task.sample(n, seed=11)
    return [*zip(batch.prompts, batch.answers, strict=True),
            *zip(batch.counterfactual_prompts, batch.counterfactual_answers, strict=True)]  # fmt: skip


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", [tasks.SelectOne, tasks.SelectFirst, tasks.SelectLast, tasks.Count, tasks.Exists])
def test_filtering_read_from_the_text(kind, first: bool) -> None:
    for prompt, answer in both(kind(distractors=5, question_first=first)):
        items = re.search(r"Options: (.*)\.\n", prompt)[1].split(", ")
        category = re.search(r"kind of (\w+)\?", prompt)[1]
        fitting = [item for item in items if item in CATEGORIES[category]]
        by_kind = {
            "select_one": lambda f: f[0], "select_first": lambda f: f[0], "select_last": lambda f: f[-1],
            "count": lambda f: NUMBERS[len(f)], "exists": lambda f: "yes" if f else "no",
        }  # fmt: skip
        assert answer == " " + by_kind[kind.name](fitting)
        assert (prompt.index("Options") > prompt.index(category)) == first
        assert kind is not tasks.SelectOne or len(fitting) == 1


def test_functions_read_from_the_text() -> None:
    for prompt, answer in both(tasks.InContextFunctions(shots=4)):
        shown = re.findall(r"Q: (\S+)\nA: (\S+)", prompt)
        query = re.search(r"Q: (\S+)\nA:$", prompt)[1]
        fitting = [each for each in RELATIONS.values() if all(each.pairs.get(x) == y for x, y in shown)]
        assert [f" {each.pairs[query]}" for each in fitting] == [answer]
        assert len(shown) == 4


def test_bare_queries_keep_their_answers() -> None:
    task = tasks.InContextFunctions()
    prompts = task.questions(10)
    bare = task.bare(prompts)
    assert bare.answers == prompts.answers
    assert all(each == f"Q: {inputs['query']}\nA:" for each, inputs in zip(bare.prompts, prompts.inputs, strict=True))


def test_shuffled_examples_show_no_function() -> None:
    batch = tasks.InContextFunctions(kind="shuffled").sample(20)
    assert set(batch.answers) == {" unknown"}
    assert batch.expected == batch.counterfactual.answers


def test_translations_read_from_the_text() -> None:
    back = {(name, word(name, each)): each for name in (*LANGUAGES, "english") for each in tasks.translation.CONCEPTS}
    for prompt, answer in both(tasks.Translation(length=4)):
        source, target = re.findall(r"(\w+) words", prompt.lower())
        listed = re.findall(r"\d\. (\w+)", prompt)
        assert [back[source, each] for each in listed[:4]] == [back[target, each] for each in (*listed[4:], answer[1:])]


def test_the_concept_moves_and_the_language_stays() -> None:
    batch = tasks.Translation().sample(30)
    for base, other, wanted in zip(batch.inputs, batch.counterfactual.inputs, batch.expected, strict=True):
        assert wanted == " " + word(base["target"], other["concepts"][-1])


def test_repetitions_read_from_the_text() -> None:
    for prompt, answer in both(tasks.RepeatedTokens(length=6)):
        words = prompt.split()
        assert words[6:] == words[: len(words) - 6]
        assert answer == " " + words[len(words) - 6]


def test_verbatim_lists_read_from_the_text() -> None:
    for prompt, answer in both(tasks.VerbatimLists(length=4)):
        listed = re.findall(r"\d\. (\w+)", prompt)
        assert [*listed[4:], answer[1:]] == listed[:4]


@pytest.mark.parametrize(("layout", "characters"), [("pairs", 2), ("pairs", 5), ("crossed", 3), ("crossed", 4)])
@pytest.mark.parametrize("kind", ["answer_pointer", "answer_payload", "query_object"])
def test_beliefs_read_from_the_text(kind: str, layout: str, characters: int) -> None:
    for prompt, answer in both(tasks.BeliefTracking(kind=kind, layout=layout, characters=characters), 20):
        filled = {(who, what): state for who, what, state in re.findall(r"(\w+) fills a (\w+) with (\w+)\.", prompt)}
        asked = re.search(r"does (\w+) believe is in the (\w+)\?", prompt).groups()
        assert answer == " " + filled.get(asked, "unknown")


@pytest.mark.parametrize("characters", [2, 4])
@pytest.mark.parametrize("kind", ["answer_pointer", "answer_payload", "query_character"])
def test_listed_stories_read_from_the_text(kind: str, characters: int) -> None:
    """One sentence, in which only the order says whose state is which."""
    for prompt, answer in both(tasks.BeliefTracking(kind=kind, layout="listed", characters=characters), 20):
        story = re.match(r"(.+) fill (.+) with (.+), in that order\.\n", prompt).groups()
        who, what, states = (re.split(r", | and ", part) for part in story)
        filled = dict(zip(zip(who, (each.removeprefix("a ") for each in what), strict=True), states, strict=True))
        asked = re.search(r"does (\w+) believe is in the (\w+)\?", prompt).groups()
        assert len(filled) == characters
        assert answer == " " + filled.get(asked, "unknown")


@pytest.mark.parametrize("characters", [2, 4])
@pytest.mark.parametrize("kind", ["answer_pointer", "answer_payload", "query_character"])
def test_numbered_stories_read_from_the_text(kind: str, characters: int) -> None:
    """From a pair to a number, and from the number to a state: no clause has both."""
    for prompt, answer in both(tasks.BeliefTracking(kind=kind, layout="numbered", characters=characters), 20):
        taps = {(who, what): tap for who, what, tap in re.findall(r"(\w+) fills a (\w+) from tap (\w+)\.", prompt)}
        states = dict(re.findall(r"Tap (\w+) has (\w+)\.", prompt))
        asked = re.search(r"does (\w+) believe is in the (\w+)\?", prompt).groups()
        assert len(taps) == len(states) == characters
        assert answer == " " + (states[taps[asked]] if asked in taps else "unknown")


def test_crossed_stories_need_both_words() -> None:
    """Each character is in two clauses and so is each object: either word alone leaves two states open."""
    for inputs in tasks.BeliefTracking(layout="crossed", characters=3).sample(30).inputs:
        for column in (0, 1):
            words = [clause[column] for clause in inputs["clauses"]]
            assert all(words.count(each) == 2 for each in words)


def test_seeing_read_from_the_text() -> None:
    for prompt, answer in both(tasks.Visibility()):
        filled = re.findall(r"(\w+) fills a (\w+) with (\w+)\.", prompt)
        who, what = re.search(r"does (\w+) believe is in the (\w+)\?", prompt).groups()
        state = next(state for _, thing, state in filled if thing == what)
        assert answer == (f" {state}" if f"{who} can see" in prompt else " unknown")


def test_bindings_read_from_the_text() -> None:
    for prompt, answer in both(tasks.EntityBinding(entities=4)):
        lives = dict(re.findall(r"(\w+) lives in the capital city of (\w+)\.", prompt))
        assert answer == " " + lives[re.search(r"Therefore, (\w+)", prompt)[1]]


def test_givers_read_from_the_text() -> None:
    for prompt, answer in both(tasks.IndirectObject()):
        names = re.findall(r"[A-Z]\w+", prompt)[1:]
        assert names.count(answer[1:]) == 1
        assert answer[1:] in names


def test_years_read_from_the_text() -> None:
    batch = tasks.GreaterThan().sample(60)
    for prompt, answer, options, wanted in zip(
        batch.prompts, batch.answers, batch.options, batch.expected, strict=True
    ):
        year = int(re.search(r"year \d\d(\d\d)", prompt)[1])
        assert (int(answer) > year) == ("lasted" in prompt)
        assert set(options) == {answer, wanted}


def test_facts_read_from_the_tables() -> None:
    for prompt, answer in both(tasks.Facts()):
        told = [each for each in RELATIONS.values() for x, y in each.pairs.items()
                if prompt == each.sentence.format(x) and answer == f" {y}"]  # fmt: skip
        assert len(told) == 1 or all(each.sentence == told[0].sentence for each in told)


BELIEF = {  # what of the counterfactual's → where in the prompt's story the answer then is (its own place is 0, of 2)
    ("answer_pointer",): "other",
    ("address", "state_id"): "other",
    ("address",): "other",
    ("state_id",): "same",  # the pointer and what it finds both flip
    ("character_id", "object_id"): "same",  # addresses follow: unfrozen, swapping the source does nothing
    ("character_id",): "same",
    ("query_character_id",): "unknown",  # (its own object, the other's id): no such address
}


@pytest.mark.parametrize("variables", BELIEF)
def test_interchanges_of_a_reversed_story(variables) -> None:
    task = tasks.BeliefTracking(kind="address_payload")
    batch = task.sample(20)
    for inputs, answer, found in zip(batch.inputs, batch.answers, task.interchange(batch, variables), strict=True):
        (other,) = {state for _, _, state in inputs["clauses"]} - {answer[1:]}
        assert found == {"other": f" {other}", "same": answer, "unknown": " unknown"}[BELIEF[variables]]


def test_frozen_addresses_make_the_source_matter() -> None:
    source, address = (tasks.BeliefTracking(kind=kind).sample(20) for kind in ("source", "address_payload"))
    assert source.expected == address.expected


def test_the_answer_pointer_brings_a_third_value() -> None:
    batch = tasks.BeliefTracking(kind="answer_pointer").sample(40)
    for ours, theirs, wanted in zip(batch.answers, batch.counterfactual_answers, batch.expected, strict=True):
        assert len({ours, theirs, wanted}) == 3


@pytest.mark.parametrize("kind", ["query_character", "query_object"])
def test_query_pointers_keep_the_word_and_change_its_id(kind: str) -> None:
    task = tasks.BeliefTracking(kind=kind)
    batch = task.sample(20)
    assert batch.words(kind) == batch.counterfactual.words(kind)
    (variable,) = task.swap.variables
    run = task.causal_model.run
    for base, other in zip(batch.inputs, batch.counterfactual.inputs, strict=True):
        assert run(base)[variable] != run(other)[variable]
    assert set(batch.answers) == {" unknown"}


SEEING = {
    ("visibility",): True,
    ("visibility_address", "visibility_pointer"): True,
    ("observed",): True,
    ("visibility_address",): False,
    ("visibility_pointer",): False,
}


@pytest.mark.parametrize("variables", SEEING)
def test_seeing_takes_the_address_and_the_pointer(variables) -> None:
    task = tasks.Visibility()
    batch = task.sample(20)
    for inputs, found in zip(batch.inputs, task.interchange(batch, variables), strict=True):
        state = next(state for _, thing, state in inputs["clauses"] if thing == inputs["object"])
        assert found == (f" {state}" if SEEING[variables] else " unknown")


def test_binding_ids_swapped_on_both_sides_give_the_answer_back() -> None:
    """Feng and Steinhardt's table: right with no swap or both, wrong with either."""
    task = tasks.EntityBinding(kind="entities", entities=2)
    batch = task.sample(30)
    swapped = {each: task.interchange(batch, each) for each in (("entity_id",), ("attribute_id",))}
    assert all(mine != own for found in swapped.values() for mine, own in zip(found, batch.answers, strict=True))
    assert task.interchange(batch, ("entity_id", "attribute_id")) == batch.answers


def test_an_unknown_variable_is_named() -> None:
    model = tasks.BeliefTracking().causal_model
    with pytest.raises(weft.WeftError, match=r"no variable \['pionter'\].*answer_pointer"):
        model.run(tasks.BeliefTracking().sample(1).inputs[0], {"pionter": 1})


def test_a_variable_needs_its_parents_before_it() -> None:
    with pytest.raises(weft.WeftError, match="computed later or never"):
        tasks.CausalModel(("a",), (tasks.Variable("answer", ("b",), str),))


def test_more_characters_than_numbers_are_refused() -> None:
    with pytest.raises(weft.errors.ProgramError, match="names for 12 taps"):
        tasks.BeliefTracking(layout="numbered", characters=13)
