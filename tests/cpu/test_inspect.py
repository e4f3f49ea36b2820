"""A proposed table says what the known one says, with the known one hidden; and what is no decoder is told so."""

from dataclasses import fields

import pytest
import torch
from tests.cpu.own_decoders import TABLE, Mine, mine
from tests.tiny import KINDS, randomised, tiny, tiny_gpt2, tiny_llama
from torch import nn

import weft
from weft.errors import ModelError
from weft.models import inspect, load, register, unregister
from weft.models.family import Family
from weft.models.registry import _LAYER_PATHS

KNOWN = ("qwen3", "olmo2", "gemma2", "gemma3", "phi3", "mixtral", "exaone4", "arcee", "gpt_neox", "bloom")
HIDDEN = {
    "gpt2": tiny_gpt2,
    "llama": tiny_llama,
    **{kind: (lambda kind=kind: tiny(kind)) for kind in KNOWN},
    "gpt_neox, one after the other": lambda: tiny("gpt_neox", use_parallel_residual=False),
}
NOT_SEEN = {  # what a table says of other configurations of its family, of experts, and of weft's own ways
    "name", "model_types", "needs", "same", "where", "lacks", "mixers", "supplied", "router", "experts", "experts_whole",
    "written_over",
}  # fmt: skip


def facts(family: Family, module: nn.Module) -> dict[str, object]:
    """What a table says of this very model: its columns that name something of it, switches looked up already."""
    layers = module.get_submodule(family.layers)
    inside = {path.partition(".")[2] for path, _ in layers.named_modules()}
    found = {each.name: getattr(family, each.name) for each in fields(family) if each.name not in NOT_SEEN}
    found = {name: value for name, value in found.items() if not name.endswith(("_in", "_if")) or name == "mlp_in"}
    return {name: "" if name in _LAYER_PATHS and value not in inside else value for name, value in found.items()}


@pytest.mark.parametrize("kind", HIDDEN)
def test_the_proposal_is_the_known_table(kind):
    module = HIDDEN[kind]()
    known = load(module).family
    assert known is not None
    before = {name: each.clone() for name, each in module.named_parameters()}
    proposal = inspect(module)
    assert facts(proposal.family, module) == facts(known, module)
    assert proposal.holds and len(proposal.identities) >= 10, str(proposal)
    assert all(torch.equal(each, before[name]) for name, each in module.named_parameters())


OWN = [
    ({}, {}),
    ({"attention": "side by side"}, {"q": "", "k": "", "v": "", "qkv": "mix.all"}),
    (
        {"attention": "by head", "parallel": True},
        {"q": "", "k": "", "v": "", "qkv": "mix.all", "packing": "by group", "parallel": True},
    ),
    ({"gated": True, "after": True}, {"gate": "feed.door", "attn_adds": "third", "mlp_adds": "fourth"}),
]


@pytest.mark.parametrize(("built", "changes"), OWN)
def test_a_hand_written_decoder(built, changes):
    proposal = inspect(mine(**built))
    assert proposal.facts == {name: value for name, value in {**TABLE, **changes}.items() if value}
    assert proposal.n_heads == "blocks.0.mix.heads" and proposal.holds and not proposal.notes


@pytest.mark.parametrize(("built", "changes"), OWN[:2])
def test_what_is_printed_can_be_pasted(built, changes):
    module = mine(**built)
    try:
        exec(inspect(module).call, {"weft": weft, "Mine": Mine})
        assert load(module).kind == "decoder"
    finally:
        unregister("mine_own")


def test_it_is_decided_by_numbers_and_not_by_names():
    class Misnamed(Mine):
        """q is called val, v is called ask."""

    module = mine()
    for block in module.blocks:
        mix = block.mix
        mix.ask, mix.key, mix.val = mix.key, mix.ask, mix.val  # key holds the queries now

    class Turned(type(module.blocks[0].mix)):
        def forward(self, x):
            self_ask, self_key = self.ask, self.key
            self.ask, self.key = self_key, self_ask
            try:
                return super().forward(x)
            finally:
                self.ask, self.key = self_ask, self_key

    for block in module.blocks:
        block.mix.__class__ = Turned
    module.__class__ = Misnamed
    assert (inspect(module).facts["q"], inspect(module).facts["k"]) == ("mix.key", "mix.ask")


def test_default_initialisation_hides_nothing():
    """Gains of 1 and biases of 0, as a model has them before it is trained; both norms give the same then."""
    torch.manual_seed(0)
    assert inspect(Mine(after=True)).facts["attn_adds"] == "third"


def test_a_loaded_model_is_looked_at_too():
    proposal = inspect(weft.load(tiny_llama()))
    assert proposal.facts["mlp_out"] == "mlp.down_proj" and "ok " in str(proposal) and "FAIL" not in str(proposal)


def test_a_proposal_registers():
    module = mine()
    proposal = inspect(module)
    register("mine", Mine, n_heads=proposal.n_heads, **proposal.facts)
    try:
        assert weft.load(module).card.sizes["n_kv_heads"] == 2
    finally:
        unregister("mine")


# -- what is none ---


class Image(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.first(image).mean((2, 3))


class Bag(nn.Module):
    """Token ids to one vector a row."""

    def __init__(self) -> None:
        super().__init__()
        self.tok = nn.Embedding(17, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tok(ids).mean(1)


def bert():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=19, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20)
    return randomised(BertForMaskedLM(config), 1)


def mamba():
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=19, hidden_size=16, num_hidden_layers=2, state_size=4)).eval()


def gpt():
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    return randomised(OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=19, n_embd=16, n_layer=2, n_head=4)), 1)


class Tied(Mine):
    """Its logits are a product with the embedding, by no module."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tok(ids) + self.place(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.last(x) @ self.tok.weight.T


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Image, "no decoder that weft can look into: run on token ids [2, 9] it raised"),
        (Bag, "of token ids [2, 9] it gives [2, 4], not [batch, pos, vocab]"),
        (bert, "another last token moves what it gives at earlier positions"),
        (mamba, "adds the output of one module, backbone.layers.0.mixer, and no second"),
        (gpt, "a norm of the stream itself, after the sum?"),
        (lambda: randomised(Tied(), 3), "no module of Tied outside its layers gives the logits"),
        (lambda: tiny_llama().config, "inspect looks at a torch.nn.Module"),
    ],
)
def test_what_is_no_decoder_is_told_why(build, said):
    with pytest.raises(ModelError) as error:
        inspect(build())
    assert said in str(error.value)


def test_the_known_tables_are_of_kinds_that_are_tested():
    assert set(KNOWN) <= set(KINDS)
