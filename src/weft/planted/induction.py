"""A transformer that continues a repeated text, by two heads put there by hand.

    planted = build()
    planted.truth                          # Truth(induction=(2, 3), previous_token=(1, 1))
    model = weft.load(planted.model, tokenizer=planted.tokenizer)        # or weft.load("induction")

The stream has four one-hot blocks: the token, its position, the token before it, and the answer. The previous-token
head of one layer attends from each position to the one before, and copies its token into the `previous` block. The
induction head of a later layer attends from a token to where that token is the `previous` one, and copies the token
there into the `answer` block, which is all that the unembedding reads. With no earlier occurrence it attends to <bos>
and writes nothing. All other heads and the MLPs are noise: they attend somewhere and write something small.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from weft.planted.blocks import Blocks, Head
from weft.planted.words import BOS, VOCABULARY, word_tokenizer

N_LAYERS, N_HEADS, D_HEAD, D_MLP, N_POSITIONS = 3, 4, 128, 64, 96
D_MODEL = N_HEADS * D_HEAD
N_VOCAB = len(VOCABULARY)
MATCH = 24.0
"""The score of a match; <bos> as a sink scores half of it, all else about 0, so softmax leaves 1e-4 to chance."""
LOGIT = 12.0
"""The logit of the answer."""


@dataclass(frozen=True)
class Truth:
    """What the model does and where, as (layer, head)."""

    induction: tuple[int, int]
    previous_token: tuple[int, int]
    n_layers: int = N_LAYERS
    n_heads: int = N_HEADS

    @property
    def noise(self) -> tuple[tuple[int, int], ...]:
        """The heads that do nothing of use."""
        heads = [(layer, head) for layer in range(self.n_layers) for head in range(self.n_heads)]
        return tuple(head for head in heads if head not in (self.induction, self.previous_token))


class Planted(NamedTuple):
    """A planted model, its tokenizer, and what is true of it."""

    model: GPT2LMHeadModel
    tokenizer: PreTrainedTokenizerFast
    truth: Truth


def truth(seed: int = 0) -> Truth:
    """Where `build(seed=seed)` puts the two heads; found without building anything."""
    draw = random.Random(f"heads {seed}")
    first, last = sorted(draw.sample(range(N_LAYERS), 2))
    return Truth(induction=(last, draw.randrange(N_HEADS)), previous_token=(first, draw.randrange(N_HEADS)))


def build(*, seed: int = 0) -> Planted:
    """Build the model, in about a second; the same `seed` gives the same weights to the bit."""
    where = truth(seed)
    noise = torch.Generator().manual_seed(seed)
    blocks = Blocks(D_MODEL, token=N_VOCAB, previous=N_VOCAB, answer=N_VOCAB, position=N_POSITIONS)
    model = _empty_model()
    planted = {where.previous_token: _previous_token_head(blocks), where.induction: _induction_head(blocks)}
    units = 2  # one-hot writes in the stream so far: token and position
    body: Any = model.transformer  # what hangs below a module is untyped in torch
    body.wte.weight.data = blocks.writer("token", N_VOCAB)
    body.wpe.weight.data = blocks.writer("position", N_POSITIONS)
    for layer, block in enumerate(body.h):
        block.ln_1.weight.data.fill_(blocks.gain(units, block.ln_1.eps))
        for head in range(N_HEADS):
            planted.get((layer, head), _noise_head(blocks, noise)).place(block.attn, head)
        units += sum(at[0] == layer for at in planted)
        block.ln_2.weight.data.fill_(blocks.gain(units, block.ln_2.eps))
        _noise_mlp(block.mlp, blocks, noise)
    body.ln_f.weight.data.fill_(blocks.gain(units, body.ln_f.eps))
    model.lm_head.weight.data = blocks.reader("answer", N_VOCAB, LOGIT).T + _normal(noise, 0.02, N_VOCAB, D_MODEL)
    return Planted(model.eval(), word_tokenizer(), where)


def _empty_model() -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=N_VOCAB, n_positions=N_POSITIONS, n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_inner=D_MLP,
        tie_word_embeddings=False, bos_token_id=VOCABULARY.index(BOS), eos_token_id=None,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    # Its initial weights are drawn from the global generator, which is the user's.
    with torch.random.fork_rng(devices=[]):
        return GPT2LMHeadModel(config)


def _previous_token_head(blocks: Blocks) -> Head:
    """Query: the position before mine. Key: my position. Copies `token` to `previous`."""
    query = blocks.reader("position", D_HEAD, MATCH * D_HEAD**0.5).roll(-1, dims=1)
    query[:, -1] = 0  # position 0 has none before it; it sees only itself anyway
    return Head(
        query=query,
        key=blocks.reader("position", D_HEAD),
        value=blocks.reader("token", D_HEAD),
        out=blocks.writer("previous", D_HEAD),
        query_bias=torch.zeros(D_HEAD),
    )


def _induction_head(blocks: Blocks) -> Head:
    """Query: my token. Key: the token before me. Copies `token` to `answer`. <bos> is the sink: value 0."""
    bos, sink = VOCABULARY.index(BOS), N_VOCAB
    key, value = blocks.reader("previous", D_HEAD), blocks.reader("token", D_HEAD)
    key[blocks["token"].start + bos, sink] = 1.0
    value[blocks["token"].start + bos] = 0
    query_bias = torch.zeros(D_HEAD)
    query_bias[sink] = MATCH / 2 * D_HEAD**0.5
    query = blocks.reader("token", D_HEAD, MATCH * D_HEAD**0.5)
    return Head(query, key, value, blocks.writer("answer", D_HEAD), query_bias)


def _noise_head(blocks: Blocks, noise: torch.Generator) -> Head:
    """Scores of about ±1, and a write of about a tenth of a one-hot's length, spread over the whole stream."""
    return Head(
        query=_normal(noise, 0.2, D_MODEL, D_HEAD),
        key=_normal(noise, 0.2, D_MODEL, D_HEAD),
        value=_normal(noise, 0.1, D_MODEL, D_HEAD),
        out=blocks.balanced(_normal(noise, 0.006, D_HEAD, D_MODEL)),
        query_bias=_normal(noise, 0.1, D_HEAD),
    )


def _noise_mlp(mlp: Any, blocks: Blocks, noise: torch.Generator) -> None:
    mlp.c_fc.weight.data = _normal(noise, 0.3, D_MODEL, D_MLP)
    mlp.c_fc.bias.data = _normal(noise, 0.1, D_MLP)
    mlp.c_proj.weight.data = blocks.balanced(_normal(noise, 0.002, D_MLP, D_MODEL))
    mlp.c_proj.bias.data = blocks.balanced(_normal(noise, 0.001, D_MODEL))


def _normal(noise: torch.Generator, scale: float, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=noise) * scale
