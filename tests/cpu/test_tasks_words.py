"""The word lists: nothing twice, every word in several relations, meanings hidden to the last syllable."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

import weft
from weft.tasks import Facts, read_tables
from weft.tasks.words import english, relations
from weft.tasks.words.english import CATEGORIES, CONCEPTS
from weft.tasks.words.languages import LANGUAGES, nonsense, syllables, word

KIND = {each: name for name, members in CATEGORIES.items() for each in members}


def test_no_word_is_in_two_categories() -> None:
    assert len(set(CONCEPTS)) == len(CONCEPTS) == 16 * 14
    assert all(len(set(words)) == 8 for words in english.RHYMES.values())


@pytest.mark.parametrize(
    "words", ["NAMES", "DRINKS", "CONTAINERS", "PROFESSIONS", "PLACES", "OBJECTS", "EVENTS", "SHORT"]
)
def test_no_word_is_in_a_list_twice(words: str) -> None:
    listed = getattr(english, words)
    assert len(set(listed)) == len(listed) >= 14


def test_excluded_goes_both_ways() -> None:
    assert all(one in english.EXCLUDED[other] for one, others in english.EXCLUDED.items() for other in others)


def test_every_word_of_a_function_has_at_least_three_outputs() -> None:
    outputs = defaultdict(set)
    for each in relations.RELATIONS.values():
        for x, y in each.pairs.items():
            assert x != y
            outputs[each.domain, x].add(y)
    assert min(map(len, outputs.values())) >= 3


def test_inflections() -> None:
    assert [relations.plural(each) for each in ("cherry", "mouse", "bus", "wolf", "peach")] == [
        "cherries", "mice", "buses", "wolves", "peaches"
    ]  # fmt: skip
    assert [relations.past(each) for each in ("go", "bake", "walk")] == ["went", "baked", "walked"]
    assert [relations.gerund(each) for each in ("run", "bake", "see")] == ["running", "baking", "seeing"]
    assert [relations.third_person(each) for each in ("fly", "play", "go")] == ["flies", "plays", "goes"]
    assert relations.RELATIONS["superlative"].pairs["dry"] == "driest"


def test_the_languages_share_no_word() -> None:
    spoken = [word(language, concept) for language in LANGUAGES for concept in CONCEPTS]
    assert len({*spoken, *CONCEPTS}) == 4 * len(CONCEPTS)
    assert not {nonsense(number) for number in range(256)} & {*spoken, *CONCEPTS}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_word_means_nothing_before_its_last_syllable(language: str) -> None:
    kinds, endings = defaultdict(set), defaultdict(set)
    for concept in CONCEPTS:
        first, *_, last = syllables(language, concept)
        kinds[first].add(KIND[concept])
        endings[last].add(KIND[concept])
    assert min(map(len, kinds.values())) >= 8
    assert min(map(len, endings.values())) >= 8
    assert {len(syllables(language, concept)) for concept in CONCEPTS} == {2, 3}


def test_tables_are_read_from_folders(tmp_path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/city.json").write_text(json.dumps({
        "name": "city", "prompt_templates": ["{} lies in"], "samples": [{"subject": s, "object": o} for s, o in
                                                                          (("Rome", "Italy"), ("Paris", "France"))]
    }))  # fmt: skip
    (tmp_path / "past.json").write_text(
        json.dumps([{"input": "go", "output": "went"}, {"input": "see", "output": "saw"}])
    )
    found = read_tables(tmp_path)
    assert found["city"].facts == {"Rome": "Italy", "Paris": "France"}
    assert found["past"].templates == ("{}:",)
    batch = Facts(tables=found).sample(8)
    assert set(batch.prompts) <= {"Rome lies in", "Paris lies in", "go:", "see:"}


def test_a_file_that_is_no_table_is_named(tmp_path) -> None:
    (tmp_path / "odd.json").write_text('{"pairs": 3}')
    with pytest.raises(weft.WeftError, match=r"odd\.json is no table of facts"):
        read_tables(tmp_path)
    with pytest.raises(weft.WeftError, match="no JSON file"):
        read_tables(tmp_path / "nowhere-folder" if (tmp_path / "odd.json").unlink() else tmp_path)


def test_published_tables_are_read(assets) -> None:
    found = read_tables(assets / "data/relations")
    assert len(found) == 47
    assert found["country capital city"].facts["Canada"] == "Ottawa"
    batch = Facts(tables=found).sample(30)
    assert all(answer in own for answer, own in zip(batch.answers, batch.options, strict=True))
    assert read_tables(assets / "data/function_vectors/present-past.json")["present-past"].facts["aim"] == "aimed"
