"""The little vocabulary of the planted models: words with the space before them, and some that may open a text.

tokenizer = word_tokenizer()
tokenizer("The cat is in Paris.").input_ids      # <bos>, "The", " cat", " is", " in", " Paris", "."
"""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, UNKNOWN = "<bos>", "<unk>"

WORDS = """
    Alice Bob Carol David Emma Frank Grace Henry Mary John
    Paris Rome London Berlin Madrid Tokyo Cairo Athens Oslo Lima
    Eiffel Tower Colosseum Bridge
    red green blue black white yellow
    cat dog bird fish horse mouse cow lion bear wolf
    apple bread milk tea salt rice
    one two three four five six seven eight
    The the a is in of and to was city went gave saw likes has lives store with said when then not who where
    book key box ball small big old new sun moon he she
""".split()
OPENERS = "The A When Alice Bob Mary John Paris Rome cat dog one red".split()
MARKS = [".", ",", "?", ":", " ="]

VOCABULARY = [BOS, UNKNOWN, *MARKS, *OPENERS, *(f" {word}" for word in WORDS)]
"""Every token, in order of its id."""


def word_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: one token a word with its leading space, <bos> in front, <unk> for a word it does not know."""
    return tokenizer_of(VOCABULARY)


def tokenizer_of(vocabulary: list[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of these tokens: each word is cut into the longest that fit, so that one or several make a word."""
    pieces = models.WordPiece(
        {token: i for i, token in enumerate(vocabulary)}, unk_token=UNKNOWN, continuing_subword_prefix=""
    )
    tokenizer = Tokenizer(pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[\p{L}\p{N}]+| ?[^\s\p{L}\p{N}]|\s+"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )
