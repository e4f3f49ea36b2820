"""A card from meta forwards holds for real ones of any size, and goes through JSON unchanged."""

import json

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama
from torch import nn

from weft.errors import FormatError, ModelError
from weft.ir.card import Dim
from weft.ir.cardjson import card_from_json, card_to_json
from weft.ir.nodes import Site
from weft.ir.types import TensorType
from weft.models import load, tapped

BUILD = {"gpt2": tiny_gpt2, "llama": tiny_llama}


@pytest.fixture(params=["gpt2", "llama"], scope="module")
def loaded(request):
    return load(BUILD[request.param](seed=1))


class Small(nn.Module):
    """A convolutional net with keyword inputs; the batch norm is in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Linear(2 * 4 * 4, 5)
        self.eval()

    def forward(self, pixels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(pixels))).flatten(1)) * scale


PIXELS = {"pixels": TensorType("float32", (2, 1, 6, 6)), "scale": TensorType("float32", (2, 1))}


@pytest.mark.parametrize(("batch", "pos"), [(1, 1), (1, 8), (4, 3)])
def test_shapes_hold_at_other_sizes(loaded, batch, pos):
    shapes = {}
    taps = {
        spec.site: lambda value, site=spec.site: shapes.update({site: tuple(value.shape)}) for spec in loaded.card.sites
    }
    with torch.no_grad(), tapped(loaded, taps):
        loaded.forward({"tokens": torch.ones(batch, pos, dtype=torch.long)})
    for spec in loaded.card.sites:
        assert shapes[spec.site] == spec.type(batch, pos).shape, spec.site


def test_no_weight_is_touched_by_building_a_card(loaded):
    before = [(each.data_ptr(), each._version, each.device) for each in loaded.module.parameters()]
    assert load(loaded.module).card == loaded.card
    assert [(each.data_ptr(), each._version, each.device) for each in loaded.module.parameters()] == before


def test_key_positions_are_told_from_query_positions(loaded):
    spec = loaded.card.by_site[Site("scores", 1)][1]
    assert spec.type(2, 3, 9).shape == (2, loaded.sizes["n_heads"], 3, 9)
    assert loaded.card.by_site[Site("k", 1)][1].type(2, 3, 9).shape[1] == 3


def test_k_and_v_have_only_the_kv_heads():
    card = load(tiny_llama()).card
    assert card.by_site[Site("k", 0)][1].dims[2] == Dim(2) and card.by_site[Site("q", 0)][1].dims[2] == Dim(4)


def test_every_weight_has_the_type_that_the_card_says(loaded):
    for name, kind in loaded.card.params.items():
        value = loaded.param(name)
        assert (tuple(value.shape), str(value.dtype)) == (kind.shape, f"torch.{kind.dtype}"), name


def test_every_part_maps_the_last_axis_alone(loaded):
    for part in loaded.card.parts:
        value = torch.randn(2, 3, part.d_in)
        with torch.no_grad():
            out = loaded.apply(part.name, value)
            assert out.shape == (2, 3, part.d_out)
            assert torch.allclose(loaded.apply(part.name, value[1:, 2:]), out[1:, 2:], atol=1e-5), part.name


def test_a_part_that_is_none_is_refused_by_name(loaded):
    with pytest.raises(ModelError, match="no part 'module\\(nothing\\)'"):
        loaded.apply("module(nothing)", torch.zeros(1))


def test_weights_in_the_fields_layouts(loaded):
    sizes = loaded.sizes
    assert loaded.param("W_U").shape == (sizes["d_model"], sizes["d_vocab"])
    assert loaded.param("W_O[1]").shape == (sizes["n_heads"], sizes["d_head"], sizes["d_model"])
    assert loaded.param("W_K[1]").shape == (sizes["n_kv_heads"], sizes["d_model"], sizes["d_head"])
    assert loaded.param("W_out[1]").shape == (sizes["d_mlp"], sizes["d_model"])
    with pytest.raises(ModelError, match=r"no weight 'W_O\[9\]'"):
        loaded.param("W_O[9]")


def test_a_card_goes_through_json_unchanged(loaded):
    text = card_to_json(loaded.card)
    assert card_from_json(text) == loaded.card and card_to_json(card_from_json(text)) == text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 1}', "[" * 5000, '{"version": 1, "name": 3}'])
def test_what_is_no_card_is_refused(text):
    with pytest.raises(FormatError):
        card_from_json(text)


def test_a_card_with_a_lie_in_it_is_refused(loaded):
    data = json.loads(card_to_json(loaded.card))
    data["sites"][0][7] = "float31"
    with pytest.raises(FormatError, match="float31"):
        card_from_json(json.dumps(data))


def test_the_card_of_a_raw_module_for_its_inputs():
    loaded = load(Small())
    assert loaded.kind == "module" and loaded.card.sites == ()
    card = loaded.card_for(PIXELS)
    types = {str(spec.site): spec.type(0, 0) for spec in card.sites}
    assert types["module(conv).input"] == TensorType("float32", (2, 1, 6, 6))
    assert types["module(conv).output"] == TensorType("float32", (2, 2, 4, 4))
    assert types["output"] == TensorType("float32", (2, 5))
    assert [str(spec.site) for spec in card.sites][-1] == "output"
    assert "has no table" in card.absent["resid_post"]
    assert card_from_json(card_to_json(card)) == card


def test_a_raw_module_is_read_and_written():
    loaded = load(Small())
    inputs = {"pixels": torch.randn(2, 1, 6, 6), "scale": torch.ones(2, 1)}
    order, card = [], loaded.card_for(PIXELS)
    with torch.no_grad():
        with tapped(loaded, {spec.site: lambda value, site=spec.site: order.append(site) for spec in card.sites}):
            base = loaded.forward(inputs)
        with tapped(loaded, {Site("module.output", None, "conv"): lambda value: value * 0}):
            out = loaded.forward(inputs)
        silent = loaded.module.head(torch.relu(loaded.module.norm(torch.zeros(2, 2, 4, 4))).flatten(1))
    assert order == [spec.site for spec in card.sites]
    assert torch.equal(out, silent) and not torch.equal(out, base)


def test_inputs_that_a_raw_module_cannot_take_are_told():
    with pytest.raises(ModelError, match=r"cannot be run on \(pixels: float32\[2, 3, 6, 6\]"):
        load(Small()).card_for({"pixels": TensorType("float32", (2, 3, 6, 6)), "scale": PIXELS["scale"]})


def test_parts_of_a_raw_module_are_those_that_surely_mix_no_other_axis():
    assert [part.name for part in load(Small()).card.parts] == ["module(head)"]


def test_a_decoder_without_a_table_has_logits_and_raw_modules():
    from transformers import GPTNeoXJapaneseConfig, GPTNeoXJapaneseForCausalLM

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "vocab_size": 11}
    loaded = load(GPTNeoXJapaneseForCausalLM(GPTNeoXJapaneseConfig(**sizes)).eval())
    assert loaded.card.family == "" and "GPTNeoXJapanese" in loaded.card.absent["z"]
    seen = []
    sites = [Site("logits"), Site("module.output", None, "gpt_neox_japanese.layers.1.mlp")]
    with tapped(loaded, {site: lambda value: seen.append(tuple(value.shape)) for site in sites}):
        loaded.forward({"tokens": torch.tensor([[1, 2, 3]])})
    assert seen == [(1, 3, 8), (1, 3, 11)]
