"""The text form: what is wrong with a line is said with its line and column. (That it reads back: test_codec.)"""

from __future__ import annotations

import pytest

from fakes import Builder, fake_card, floats
from weft.errors import FormatError
from weft.ir.check import check
from weft.ir.nodes import Const, Experiment, Op, Site
from weft.ir.text import parse, render, site_text

HEAD = "weft experiment, schema 1\n"


def test_types_and_lines_are_for_the_reader_alone() -> None:
    b = Builder()
    b.read(b.run([[1, 2]]), "z", 1)
    experiment = b.experiment()
    text = render(experiment, check(experiment, fake_card()).types)
    assert text.splitlines()[-1].split("  #") == ["%2 = read run=%1 z[1]".ljust(56), " float32[1, 2, 3, 4]  user.py:3"]
    assert parse(text) == parse(render(Experiment(experiment.nodes)))


def test_constants_come_from_a_mapping_or_are_named_only() -> None:
    data = floats(2, fill=1.5)
    text = render(Experiment((Const(data),)))
    (known,), (named,) = parse(text, {data.digest(): data}).nodes, parse(text).nodes
    assert known.data.tobytes() == data.tobytes()
    assert (named.data.type, named.data.digest()) == (data.type, data.digest())
    with pytest.raises(FormatError, match="is not here: the text form names constants"):
        named.data.tobytes()


def test_a_site_shows_each_of_its_fields() -> None:
    assert site_text(Site("z", 5)) == "z[5]"
    assert site_text(Site("module.output", None, "h.0", 2, "0")) == 'module.output("h.0").call(2)["0"]'


def test_spelling_tells_the_kinds_of_arguments_apart() -> None:
    text = HEAD + '%0 = op f 1, 1.0, true, "1", float32, none, [1, -inf], nan, %0.1\n'
    assert render(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1, column 1: expected 'weft', got 'the end'"),
        ("weft experiment, schema 2", "line 1, column 26: expected schema 1, the only one this version reads"),
        (HEAD + "%1 = op relu", "line 2, column 1: expected %0, the number of this node, got '%1'"),
        (HEAD + "%0 = exec x", "line 2, column 6: expected a kind of node: run, read, write"),
        (HEAD + "%0 = read.nograd run=%1 z", "line 2, column 6: expected a kind of node"),
        (HEAD + "%0 = op f 1 2", "line 2, column 13: expected ',', got '2'"),
        (HEAD + "%0 = op f hello", "line 2, column 11: expected an argument"),
        (HEAD + "%0 = op f 99999999999999999999", "expected a whole number of 64 bits"),
        (HEAD + "%0 = write %1 [] %2", "expected '<-', got '%2'"),
        (HEAD + "save x %1", "line 2, column 6: expected quoted text, got 'x'"),
        (HEAD + 'save "\\q" %1', "expected text quoted as in JSON"),
        (HEAD + "%0 = const object[2] sha256:" + "0" * 64, "expected a dtype: bool, uint8"),
        (HEAD + '%0 = param "a" %3', "expected the end of the line, got '%3'"),
        (HEAD + "%0 = op f §", "line 2, column 11: expected a word"),
        (HEAD + "%0 = op f " + "[" * 10_000, "expected at most 48 levels of nesting"),
        (HEAD + '%0 = op f "unfinished', "line 2, column 11: expected a word"),
    ],
)
def test_a_mistake_is_shown_with_line_and_column(text: str, message: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(text)
    assert message in caught.value.message


def test_nothing_of_the_users_text_can_break_a_line() -> None:
    experiment = Experiment((Op('f"\n# x', ("a\nb",)),))
    assert len(render(experiment).splitlines()) == 2
    assert parse(render(experiment)) == experiment
