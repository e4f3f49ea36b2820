"""Families with experts: the same equations as every dense family, where each layer has attention."""

import pytest
import torch
from experts_zoo import EXPERTS
from family_equations import IDS, POS, before, neurons, per_query_head, rotated, seen
from test_families_equations import (  # noqa: F401
    same,
    test_a_value_that_was_read_stays_what_it_was,
    test_attn_out_is_what_is_added,
    test_embed,
    test_head_out_is_the_projection_of_that_head_alone,
    test_logits_are_the_unembedding_of_the_last_norm,
    test_nothing_is_left_as_initialised,
    test_pattern_is_the_softmax_of_scores,
    test_q_k_v_are_projections_of_the_normed_stream,
    test_streams_add_up,
    test_the_configuration_makes_heads_keys_and_layers_differ,
    test_z_mixes_values_by_pattern,
)
from test_families_equations import test_q_and_k_are_turned_as_the_family_turns_them as plainly_turned
from test_families_equations import test_scores_have_scale_cap_bias_and_mask as plainly_scored

LAYERS = range(3)


@pytest.fixture(params=EXPERTS, scope="module")
def s(request):
    return seen(request.param)


def llama4(s) -> bool:
    return s.config.model_type == "llama4_text"


@pytest.mark.parametrize("layer", LAYERS)
def test_q_and_k_are_turned_and_what_comes_after_that(s, layer):
    if not llama4(s):
        plainly_turned(s, layer)
        return
    for name in "qk":  # neighbours turned, then made of one length; in layers without rotary, q by its position
        x = s[name, layer]
        if layer != 1:
            x = rotated(x, 10000.0, x.shape[-1], "pairs")
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + s.config.rms_norm_eps)
        elif name == "q":
            x = x * (1 + 0.5 * torch.log1p((torch.arange(POS) + 1).div(2).floor()))[:, None, None]
        assert same(s[f"{name}_rot", layer], x), name
        assert same(s[f"{name}_rot", layer], s[name, layer]) is (layer == 1 and name == "k")


@pytest.mark.parametrize("layer", LAYERS)
def test_scores_have_scale_and_mask(s, layer):
    if not llama4(s):
        plainly_scored(s, layer)
        return
    k = per_query_head(s, s["k_rot", layer])
    expected = torch.einsum("bqhd,bkhd->bhqk", s["q_rot", layer], k) * s.loaded.sizes["d_head"] ** -0.5
    at = torch.arange(POS)
    hidden = at[None] > at[:, None]
    if layer != 1:  # chunks of four positions that do not see each other
        hidden = hidden | (at[None] // 4 != at[:, None] // 4)
    assert torch.equal(s["scores", layer].isneginf(), hidden.expand(2, 4, POS, POS))
    assert same(s["scores", layer].masked_fill(hidden, 0.0), expected.masked_fill(hidden, 0.0))


def test_layers_have_neurons_or_experts_and_say_which(s):
    card = s.loaded.card
    for layer in LAYERS:
        at = f"[{layer}]"
        if f"W_in{at}" not in card.params:
            assert "several experts" in card.absent.get(f"mlp_pre{at}", "") + card.absent.get("mlp_pre", "")
            assert s["router_logits", layer].shape == (*IDS.shape, s.loaded.sizes["n_experts"])
            continue
        assert "is one, with no experts" in card.absent[f"router_logits{at}"]
        pre, post = neurons(s, layer)
        assert same(s["mlp_pre", layer], pre) and same(s["mlp_post", layer], post)
        given = post @ s.loaded.param(f"W_out{at}") + s.param(f"b_out{at}")
        assert same(s["mlp_out", layer], given)
        assert not same(s["mlp_out", layer], before(s, layer) + given)
