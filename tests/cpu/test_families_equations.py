"""Every dense family, every site: what is read is what its equation gives, and the tempting wrong reading is not."""

import pytest
import torch
import transformers
from family_equations import (
    IDS,
    added,
    attention_gives,
    before,
    logits,
    mlp_gives,
    neurons,
    normed,
    pattern,
    per_query_head,
    projected,
    query,
    scores,
    seen,
    turned,
)
from family_zoo import KINDS

from weft.models import load
from weft.models.families import BY_MODEL_TYPE
from weft.models.packing import split
from weft.models.tables.without import WITHOUT

LAYERS = range(3)
HAS_THE_STREAM = {"bloom": ("attn", "mlp"), "mpt": ("mlp",)}
"""Modules that are given the stream and return it with what they add."""


@pytest.fixture(params=KINDS, scope="module")
def s(request):
    return seen(request.param)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    # Norms, angles and softmaxes are in float32 in many models, whatever their dtype.
    return left.shape == right.shape and torch.allclose(left.double(), right.double(), rtol=2e-5, atol=2e-5)


def test_the_configuration_makes_heads_keys_and_layers_differ(s):
    sizes = s.loaded.sizes
    assert sizes["n_heads"] != sizes["n_layers"] == 3 != sizes["n_kv_heads"]


def test_types_that_are_not_of_a_tables_form_are_decoders_without_a_table():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert WITHOUT.keys() <= MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() and not WITHOUT.keys() & BY_MODEL_TYPE.keys()
    model = transformers.OpenAIGPTConfig(n_layer=2, n_head=2, n_embd=8, vocab_size=11)
    card = load(transformers.OpenAIGPTLMHeadModel(model).eval()).card
    assert "norms are of the stream itself, after each sum" in card.absent["attn_out"]


def test_a_configuration_that_departs_from_its_table_says_in_what():
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 8, "ffn_dim": 8, "vocab_size": 11}
    for changes, expected in (
        ({"do_layer_norm_before": False, "word_embed_proj_dim": 8}, "do_layer_norm_before is False"),
        ({"word_embed_proj_dim": 4}, "word_embed_proj_dim is not hidden_size"),
    ):
        model = transformers.OPTForCausalLM(transformers.OPTConfig(**sizes, **changes)).eval()
        assert expected in load(model).card.absent["attn_out"]


def test_nothing_is_left_as_initialised(s):
    for name, parameter in s.loaded.module.named_parameters():
        assert parameter.unique().numel() > parameter.numel() // 2, name


def test_a_value_that_was_read_stays_what_it_was(s):
    for site, value in s.tensors.items():
        if not site.path:
            assert torch.equal(value, s.values[site]), site


def test_embed(s):
    if s.kind.unknown_embed:
        return
    bare = s.loaded.param("W_E")[IDS]
    expected = bare * s.kind.embed + (s.loaded.param("W_pos")[: IDS.shape[1]] if s.kind.learned else 0.0)
    assert same(s["embed"], expected)
    assert same(s["embed"], bare) is (s.kind.embed == 1.0 and not s.kind.learned)


@pytest.mark.parametrize("layer", LAYERS)
def test_q_k_v_are_projections_of_the_normed_stream(s, layer):
    for name in "qkv":
        assert same(s[name, layer], query(s, layer, name)), name
        if s.loaded.family.norm1:
            assert not same(s[name, layer], projected(s, layer, name, before(s, layer))), name
    if s.kind.qk:
        bare = (
            projected(s, layer, "q", normed(s, layer, s.loaded.family.norm1, before(s, layer)))
            if s.loaded.family.norm1
            else projected(s, layer, "q", before(s, layer))
        )
        assert not same(s["q", layer], bare)


def test_q_k_v_in_one_projection_lie_as_the_family_has_them(s):
    sizes, family = s.loaded.sizes, s.loaded.family
    assert bool(family.qkv) is bool(s.kind.packing) or s.config.model_type == "phi3"
    if not s.kind.packing or s.kind.qk:
        return
    together = s.raw(1, family.qkv)
    for packing in ("side by side", "by group", "in four"):
        one_group = sizes["n_kv_heads"] == 1  # then they are the same
        if sizes["n_heads"] % 4 or (packing == "in four" and sizes["n_kv_heads"] != sizes["n_heads"]):
            continue
        read = dict(zip("qkv", split(together, packing, sizes), strict=True))
        right = packing == s.kind.packing or (one_group and packing != "in four")
        assert all(same(s[name, 1], part) for name, part in read.items()) is right, packing


@pytest.mark.parametrize("layer", LAYERS)
def test_q_and_k_are_turned_as_the_family_turns_them(s, layer):
    for name in "qk":
        assert same(s[f"{name}_rot", layer], turned(s, layer, name, s[name, layer])), name
        if s.kind.rotary and layer not in s.kind.still:
            other = {"half": "pairs", "pairs": "half", "half, back": "half"}[s.kind.rotary]
            assert not same(s[f"{name}_rot", layer], turned(s, layer, name, s[name, layer], other)), name
            assert not same(s[f"{name}_rot", layer], s[name, layer])


@pytest.mark.parametrize("layer", LAYERS)
def test_scores_have_scale_cap_bias_and_mask(s, layer):
    expected = scores(s, layer)
    seen_keys = ~expected.isneginf()
    assert torch.equal(s["scores", layer].isneginf(), ~seen_keys)
    assert same(s["scores", layer].masked_fill(~seen_keys, 0.0), expected.masked_fill(~seen_keys, 0.0))


@pytest.mark.parametrize("layer", LAYERS)
def test_pattern_is_the_softmax_of_scores(s, layer):
    assert same(s["pattern", layer], pattern(s, layer))
    total = s["pattern", layer].sum(-1)
    assert bool((total < 1).all()) if s.kind.sinks else same(total, torch.ones_like(total))


@pytest.mark.parametrize("layer", LAYERS)
def test_z_mixes_values_by_pattern(s, layer):
    v, sizes = s["v", layer], s.loaded.sizes
    assert same(s["z", layer], torch.einsum("bhqk,bkhd->bqhd", s["pattern", layer], per_query_head(s, v)))
    if 1 < sizes["n_kv_heads"] < sizes["n_heads"]:
        strided = v.repeat(1, 1, sizes["n_heads"] // sizes["n_kv_heads"], 1)
        assert not same(s["z", layer], torch.einsum("bhqk,bkhd->bqhd", s["pattern", layer], strided))


@pytest.mark.parametrize("layer", LAYERS)
def test_attn_out_is_what_is_added(s, layer):
    gives = attention_gives(s, layer)
    assert same(s["attn_out", layer], added(s, layer, 0, gives))
    changed = bool(s.kind.post[0]) or s.kind.times != 1.0
    assert same(s["attn_out", layer], gives) is not changed
    stream = "attn" in HAS_THE_STREAM.get(s.config.model_type, ())
    assert same(s["attn_out", layer], s.raw(layer, s.loaded.family.attn)) is not (changed or stream)


def test_head_out_is_the_projection_of_that_head_alone(s):
    """A second way to the same: the model's own projection of one head at a time."""
    family, heads = s.loaded.family, s.loaded.sizes["n_heads"]
    projection = s.loaded.module.get_submodule(f"{family.layers}.1.{family.o}")
    given = s.raw(1, family.o, "input").unflatten(-1, (heads, -1))
    times = 1.0 if s.kind.post[0] else s.kind.times
    for head in range(heads):
        alone = torch.zeros_like(given)
        alone[:, :, head] = given[:, :, head]
        with torch.no_grad():
            share = projection(alone.flatten(2)) - projection(torch.zeros_like(alone.flatten(2)))
        assert same(s["head_out", 1][:, :, head], share * times)
    if not s.kind.post[0]:
        assert same(s["head_out", 1].sum(2) + s.param("b_O[1]") * times, s["attn_out", 1])


@pytest.mark.parametrize("layer", LAYERS)
def test_streams_add_up(s, layer):
    start, attn, mlp = before(s, layer), s["attn_out", layer], s["mlp_out", layer]
    assert same(start + attn + mlp, s["resid_post", layer])
    assert ("resid_mid" in s.loaded.card.absent) is s.kind.parallel
    if not s.kind.parallel:
        assert same(start + attn, s["resid_mid", layer])
    assert not same(start + attn, start) and not same(start + mlp, start)


@pytest.mark.parametrize("layer", LAYERS)
def test_neurons_before_and_after_the_activation(s, layer):
    pre, post = neurons(s, layer)
    assert same(s["mlp_pre", layer], pre) and same(s["mlp_post", layer], post)
    assert not same(s["mlp_post", layer], s.kind.act(pre)) or not s.kind.gated
    assert s["mlp_pre", layer].dim() == 3


@pytest.mark.parametrize("layer", LAYERS)
def test_mlp_out_is_what_is_added(s, layer):
    gives = mlp_gives(s, layer)
    assert same(s["mlp_out", layer], added(s, layer, 1, gives))
    changed = bool(s.kind.post[1]) or s.kind.times != 1.0
    assert same(s["mlp_out", layer], gives) is not changed
    if s.loaded.family.mlp:
        stream = "mlp" in HAS_THE_STREAM.get(s.config.model_type, ())
        assert same(s["mlp_out", layer], s.raw(layer, s.loaded.family.mlp)) is not (changed or stream)


def test_logits_are_the_unembedding_of_the_last_norm(s):
    last = s["resid_post", 2]
    assert same(s["final_norm"], normed(s, None, s.loaded.family.final_norm, last) if s.kind.norm else s["final_norm"])
    assert same(s["logits"], logits(s))
    assert same(s.loaded.apply("unembed", s.loaded.apply("final_norm", last)), s["logits"])
    bare = s["final_norm"] @ s.loaded.param("W_U") + s.param("b_U")
    assert same(s["logits"], bare) is (s.kind.logits == 1.0 and not s.kind.cap)
    with torch.no_grad():
        assert torch.allclose(s["logits"], s.loaded.module(IDS).logits, atol=1e-5)
