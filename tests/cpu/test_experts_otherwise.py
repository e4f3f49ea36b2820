"""Latent attention, gated mixes and layers of other kinds: what their equations give where the usual ones do not hold."""

import pytest
import torch
from experts_zoo import OTHERS
from family_equations import IDS, POS, before, hidden, normed, rotated, seen
from test_families_equations import (  # noqa: F401
    same,
    test_a_value_that_was_read_stays_what_it_was,
    test_logits_are_the_unembedding_of_the_last_norm,
    test_nothing_is_left_as_initialised,
    test_streams_add_up,
    test_the_configuration_makes_heads_keys_and_layers_differ,
)
from test_families_equations import test_head_out_is_the_projection_of_that_head_alone as head_alone
from tests.cpu import naive_experts as naive

from weft.errors import SiteError
from weft.models.names import resolve

LATENT = [name for name in OTHERS if name.startswith(("deepseek", "glm4"))]
LAYER = 1


@pytest.fixture(params=OTHERS, scope="module")
def s(request):
    return seen(request.param)


@pytest.fixture(params=LATENT, scope="module")
def latent(request):
    return seen(request.param)


def weight(s, path: str) -> torch.Tensor:
    """A projection of layer LAYER as it is stored, [out, in]."""
    return s.loaded.param(f"param({s.loaded.family.layers}.{LAYER}.self_attn.{path}.weight)")


def plain_norm(s, path: str, x: torch.Tensor) -> torch.Tensor:
    gain = s.loaded.param(f"param({s.loaded.family.layers}.{LAYER}.self_attn.{path}.weight)")
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * gain


def keys_and_values(s) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the latent and of the part that heads share, written out: keys before rotary, the shared part, values."""
    config, x = s.config, normed(s, LAYER, "input_layernorm", before(s, LAYER))
    both = x @ weight(s, "kv_a_proj_with_mqa").T
    made, shared = both.split([config.kv_lora_rank, config.qk_rope_head_dim], -1)
    heads = (plain_norm(s, "kv_a_layernorm", made) @ weight(s, "kv_b_proj").T).unflatten(-1, (4, -1))
    keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], -1)
    return keys, shared, values


def test_queries_of_latent_attention_enter_rotary_in_part(latent):
    s, x = latent, normed(latent, LAYER, "input_layernorm", before(latent, LAYER))
    if s.config.q_lora_rank is None:
        q = (x @ weight(s, "q_proj").T).unflatten(-1, (4, -1))
    else:
        q = (plain_norm(s, "q_a_layernorm", x @ weight(s, "q_a_proj").T) @ weight(s, "q_b_proj").T).unflatten(
            -1, (4, -1)
        )
    assert same(s["q", LAYER], q)
    assert f"W_Q[{LAYER}]" not in s.loaded.card.params  # a matrix from the stream to queries is not there
    assert same(s["q_rot", LAYER][..., :6], q[..., :6])
    assert same(s["q_rot", LAYER][..., 6:], turned(s, q[..., 6:]))
    assert not same(s["q_rot", LAYER][..., 6:], turned(s, q[..., 6:], other=True))


def turned(s, x: torch.Tensor, other: bool = False) -> torch.Tensor:
    """V2 turns neighbours and leaves them there; V3 puts first the first of each pair, then the second."""
    how = {"pairs": "half", "half": "pairs"}[s.kind.rotary] if other else s.kind.rotary
    found = rotated(x, 10000.0, 4, how)
    apart = s.config.model_type != "deepseek_v2" and how == "pairs"
    return torch.cat([found[..., 0::2], found[..., 1::2]], -1) if apart else found


def test_keys_and_values_of_latent_attention_are_made_of_the_latent(latent):
    s = latent
    keys, shared, values = keys_and_values(s)
    assert same(s["v", LAYER], values) and s["v", LAYER].shape[-1] == 7 != s["q", LAYER].shape[-1]
    assert same(s["k_rot", LAYER][..., :6], keys)
    part = turned(s, shared[:, :, None])
    assert same(s["k_rot", LAYER][..., 6:], part.expand(-1, -1, 4, -1))
    with pytest.raises(SiteError, match="no k: keys are made of a latent"):
        resolve("k", LAYER, s.loaded.card)


def test_scores_patterns_and_mixes_of_every_kind(s):
    scale = s["q", LAYER].shape[-1] ** -0.5
    k, v = (each.repeat_interleave(4 // each.shape[2], 2) for each in (s["k_rot", LAYER], s["v", LAYER]))
    expected = torch.einsum("bqhd,bkhd->bhqk", s["q_rot", LAYER], k) * scale
    unseen = hidden(s, LAYER)
    assert same(s["scores", LAYER].masked_fill(unseen, 0.0), expected.masked_fill(unseen, 0.0))
    assert same(s["pattern", LAYER], expected.masked_fill(unseen, float("-inf")).softmax(-1))
    assert same(s["z", LAYER], torch.einsum("bhqk,bkhd->bqhd", s["pattern", LAYER], v))
    given = s.raw(LAYER, s.loaded.family.o, "input").unflatten(-1, (4, -1))
    assert same(s["z", LAYER], given) is (s.config.model_type not in ("qwen3_next", "qwen3_5_moe_text", "afmoe"))
    head_alone(s)


def test_mixes_are_gated_after_z_where_queries_lie_beside_gates():
    s = seen("qwen3_next")
    x = normed(s, LAYER, "input_layernorm", before(s, LAYER))
    q, gate = (x @ weight(s, "q_proj").T).unflatten(-1, (4, 2, 8)).unbind(-2)
    assert same(s["q", LAYER], normed(s, LAYER, "self_attn.q_norm", q))
    assert not same(s["q", LAYER], normed(s, LAYER, "self_attn.q_norm", gate))
    assert same(s.raw(LAYER, "self_attn.o_proj", "input").unflatten(-1, (4, 8)), s["z", LAYER] * gate.sigmoid())


@pytest.mark.parametrize(("name", "mixer"), [("qwen3_next", "linear_attn"), ("lfm2_moe", "conv")])
def test_layers_of_other_kinds_have_what_they_add_and_no_heads(name, mixer):
    s = seen(name)
    for layer in (0, 2):
        assert same(s["attn_out", layer], s.raw(layer, mixer))
        assert same(before(s, layer) + s["attn_out", layer], s["resid_mid", layer])
        for site in ("q", "k", "v", "q_rot", "k_rot", "scores", "pattern", "z", "head_out"):
            assert f"{mixer} mixes positions instead" in s.loaded.card.absent[f"{site}[{layer}]"]
    assert s["pattern", LAYER].shape == (len(IDS), 4, POS, POS)


def test_where_nothing_is_added_to_the_stream_as_it_was_no_site_says_so():
    """MiniMax: norm, then that times a factor and what the sublayer gives times another, twice."""
    s, config = seen("minimax"), seen("minimax").config
    start = normed(s, LAYER, "input_layernorm", before(s, LAYER))
    attention = s.raw(LAYER, "self_attn.o_proj")
    assert same(s["resid_mid", LAYER], 1.3 * start + 0.6 * attention)
    between = normed(s, LAYER, "post_attention_layernorm", s["resid_mid", LAYER])
    block = s.loaded.module.model.layers[LAYER].mlp
    weights = naive.weights("minimax", s["router_logits", LAYER], config, block.gate)
    assert same(s["expert_weights", LAYER], weights)
    outs = naive.outs("minimax", between, weights, block.experts).sum(2)
    assert same(s["resid_post", LAYER], 0.9 * between + 1.2 * outs)
    for site in ("attn_out", "mlp_out", "head_out", "expert_out"):
        assert "nothing is added to the stream as it was" in s.loaded.card.absent[site]
    assert "self_attn mixes positions instead" in s.loaded.card.absent["pattern[0]"]
