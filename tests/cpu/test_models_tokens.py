"""Tokens are exactly what the tokenizer gives, from a card's data as from the tokenizer itself."""

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from weft.errors import PositionError, TokenError
from weft.models.tokens import Tokens, data_of, encode_ids

STORY = "The cat sat on the mat and the cat slept"


@pytest.fixture(scope="module")
def words() -> Tokens:
    """One token a word, each with the space before it; it adds a BOS."""
    vocab = {"[U]": 0, "<s>": 1, **{word: at for at, word in enumerate(dict.fromkeys(_split(STORY)), start=2)}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[U]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_next")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return Tokens({**data_of(tokenizer), "bos_token": "<s>"})


def _split(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def test_rows_are_padded_on_the_left(words):
    encoded = words.encode(["The cat sat", "The"])
    assert encoded.ids.tolist() == [[1, 2, 3, 4], [0, 0, 1, 2]]
    assert encoded.start.tolist() == [0, 2]


def test_one_text_is_one_row(words):
    assert words.encode("The cat").ids.tolist() == [[1, 2, 3]]


def test_a_doubled_bos_is_refused(words):
    with pytest.raises(TokenError, match=r"row 1: .*which the tokenizer adds by itself"):
        words.encode(["The cat", "<s>The cat"])


def test_a_place_is_found_by_its_text(words):
    ids, start = words.encode([STORY, "The mat"])
    assert words.find(ids[0], " mat") == (6, 6)
    assert words.find(ids[0], "sat on") == (3, 4)
    assert words.find(ids[1], " mat", start=int(start[1])) == (10, 10)
    assert words.at(ids, start, " mat").tolist() == [6, 10]
    assert words.at(ids[:1], start[:1], "sat on the mat", end="first").tolist() == [3]


def test_a_miss_names_the_row(words):
    ids, start = words.encode([STORY, "The mat"])
    with pytest.raises(PositionError, match=r"row 1: ' sat' is not in 'The mat'"):
        words.at(ids, start, " sat")


def test_a_repeat_must_be_meant(words):
    ids, _ = words.encode(STORY)
    with pytest.raises(PositionError, match=r"row 0: ' cat' is 2 times.*occurrence=0 … 1"):
        words.find(ids[0], " cat")
    assert words.find(ids[0], " cat", occurrence=0) == (2, 2)
    assert words.find(ids[0], " cat", occurrence=-1) == (9, 9)
    with pytest.raises(PositionError, match="occurrence=2"):
        words.find(ids[0], " cat", occurrence=2)


def test_ids_that_never_were_a_text_are_searched_as_they_decode(words):
    assert Tokens(words.data).find(torch.tensor([1, 2, 3, 4]), " sat") == (3, 3)


def test_single_tokens(words):
    assert words.single(" cat") == 3
    with pytest.raises(TokenError, match=r"' cat sat' is 2 tokens, not one: \[' cat', ' sat'\]"):
        words.single(" cat sat")


def test_a_piece_of_text_has_no_bos(words):
    assert words.ids(" cat sat") == [3, 4]
    with pytest.raises(TokenError, match="gives no tokens"):
        words.ids("")


def test_ids_are_taken_as_they_are(words):
    given = torch.tensor([[1, 1, 2]])
    assert torch.equal(words.encode(given).ids, given)
    assert words.encode([[2, 3], [4]]).ids.tolist() == [[2, 3], [0, 4]]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (torch.tensor([1, 2]), r"int64 \[batch, pos\]; this is int64\[2\]"),
        (torch.ones(1, 2), r"this is float32\[1, 2\]"),
        ([[1, 2], [3, 99]], "row 1, position 1: token id 99 is not in 0 … 9"),
        ("text", "the model has no tokenizer"),
        ([], "prompts must be text"),
        ([1.5], "prompts must be text"),
    ],
)
def test_ids_that_are_none_are_refused(prompts, message):
    with pytest.raises(TokenError, match=message):
        encode_ids(prompts, d_vocab=10)


def test_a_conversation_needs_a_template(words):
    chat = [{"role": "user", "content": "The cat"}]
    with pytest.raises(TokenError, match="no chat template"):
        words.encode(chat)
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    rendered = Tokens({**words.data, "chat_template": template + "{% if add_generation_prompt %} sat{% endif %}"})
    assert rendered.encode(chat).ids.tolist() == [[1, 2, 3, 4]]
    answered = [*chat, {"role": "assistant", "content": " on"}]
    assert rendered.encode([chat, answered]).ids.tolist() == [[1, 2, 3, 4], [1, 2, 3, 5]]


ASSETS = ["hf-stories260k", "hf-tinystories-656k", "hf-gpt-nano-sort", "tokenizer-gpt2"]
TEXTS = ["Once upon a time, Lily saw a dog.", "Hello world", " two  spaces\nand a line", "naïve 😀 résumé"]


@pytest.mark.assets
@pytest.mark.parametrize("folder", ASSETS)
def test_tokens_are_those_of_transformers(assets, folder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(assets / folder)
    ours = Tokens(data_of(theirs))
    for text in ["CABBAC"] if folder.endswith("sort") else TEXTS:
        ids = theirs(text).input_ids
        assert ours.encode(text).ids[0].tolist() == ids
        assert ours.decode(ids) == theirs.decode(ids)
        assert "".join(ours.pieces(ids)).strip() == theirs.decode(ids).strip()


@pytest.mark.assets
@pytest.mark.parametrize("folder", ASSETS[:2] + ASSETS[3:])
def test_every_word_is_found_where_its_characters_are(assets, folder):
    from transformers import AutoTokenizer

    data = data_of(AutoTokenizer.from_pretrained(assets / folder))
    odd = [] if "tinystories" in folder else ["naïve", "😀"]  # not in its vocabulary
    text = f"Once upon a time, Lily saw {' '.join(odd)} dogs."
    written = Tokens(data)
    ids = written.encode(text).ids
    for tokens in (written, Tokens(data)):  # the second one never saw the text, only the tokens
        for word in ["upon", "Lily", "dogs", *odd]:
            first, last = tokens.find(ids[0], word)
            assert word in tokens.decode(ids[0, first : last + 1])
            assert word not in tokens.decode(ids[0, first + 1 : last + 1])
            assert word not in tokens.decode(ids[0, first:last])


@pytest.mark.assets
def test_hello_world_is_15496_995(assets):
    from transformers import AutoTokenizer

    tokens = Tokens(data_of(AutoTokenizer.from_pretrained(assets / "tokenizer-gpt2")))
    assert tokens.encode("Hello world").ids.tolist() == [[15496, 995]]
    assert tokens.single(" world") == 995


@pytest.mark.assets
def test_a_token_that_puts_a_space_before_every_text_is_still_one(assets):
    from transformers import AutoTokenizer

    tokens = Tokens(data_of(AutoTokenizer.from_pretrained(assets / "hf-stories260k")))
    assert tokens.single(" Lily") == tokens.single("Lily") == tokens.encode("a Lily").ids[0, -1]
