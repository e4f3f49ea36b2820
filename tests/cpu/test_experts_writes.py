"""Families with experts: what is written has the effect that its equation gives, as in every dense family."""

import pytest
import torch
from experts_zoo import EXPERTS, NOT_ADDED, OTHERS
from family_equations import IDS
from family_zoo import ROWS, loaded
from test_families_writes import run as run_on
from test_families_writes import (  # noqa: F401
    sites,
    standard,
    test_a_site_written_with_its_own_value_changes_nothing,
    test_every_standard_site_when_written_moves_the_logits,
    test_raw_modules_equal_plain_hooks,
    test_sdpa_and_eager_give_the_same_sites,
    test_shapes_and_order_are_the_cards_at_other_sizes,
    test_what_is_added_to_a_head_is_added_to_what_attention_adds,
    test_what_is_added_to_attn_out_and_mlp_out_is_added_to_the_stream,
)
from test_families_writes import test_one_head_of_q_k_or_v_written_leaves_the_others as one_head
from test_families_writes import test_steps_with_a_cache_give_the_sites_of_the_whole as steps

from weft.errors import ExecutionError
from weft.ir.nodes import Site
from weft.models import tapped
from weft.models.caches import new_cache


@pytest.fixture(params=[*EXPERTS, *OTHERS], scope="module")
def name(request):
    return request.param


def test_padded_rows_give_each_rows_own_numbers(name):
    if name == "llama4_text":
        return  # it scales queries by where they lie in what it is given, padding included: weft gives it none
    model = loaded(name, torch.float32)
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [0, 0, 2, 7, 1, 8, 2]])
    alone = run_on(model, {}, ids[1:, 2:])
    for taps in ({}, {Site("pattern", 1): lambda value: None}):  # the model's own attention, and weft's
        padded = run_on(model, taps, ids, start=torch.tensor([0, 2]))
        assert torch.allclose(padded[1:, 2:], alone, atol=1e-4)


def test_one_head_written_leaves_the_others(name):
    if name in EXPERTS:
        one_head(name)


def test_steps_with_a_cache(name):
    """Two positions on from five: the later rows of the whole pass's, to 1e-4 of the largest value.

    Qwen 3.5's linear attention works in float32 whatever the weights are, and goes another way with a cache than without.
    """
    if name in EXPERTS:
        steps(name)
        return
    model, found = loaded(name), {}
    cache = new_cache(model.module.config)
    wanted = [site for site in standard(model) if site.layer is not None]
    whole = sites(model, wanted=wanted)
    with torch.no_grad():
        model.forward({"tokens": IDS[:, :5]}, cache)
        with tapped(model, {site: lambda value, site=site: found.update({site: value.clone()}) for site in wanted}):
            model.forward({"tokens": IDS[:, 5:]}, cache)
    for site in wanted:
        rows = whole[site][:, :, 5:] if site.name in ("scores", "pattern") else whole[site][:, 5:]
        value, expected = found[site].nan_to_num(neginf=0.0), rows.nan_to_num(neginf=0.0)
        assert torch.allclose(value, expected, atol=1e-4 * max(1.0, float(expected.abs().max()))), site


def test_what_is_written_where_nothing_is_added_moves_the_logits():
    (name,) = NOT_ADDED
    test_every_standard_site_when_written_moves_the_logits(name)
    test_a_site_written_with_its_own_value_changes_nothing(name)
    test_raw_modules_equal_plain_hooks(name)


@pytest.mark.parametrize("written", ["v", "k_rot"])
def test_where_a_cache_keeps_latents_keys_and_values_are_not_written_with_one(written):
    model = loaded("deepseek_v3")
    tap = {Site(written, 1): lambda value: value + 1.0}
    with tapped(model, tap), pytest.raises(ExecutionError, match="cache of this model holds a latent"):
        model.forward({"tokens": IDS}, new_cache(model.module.config))


def test_half_precision_has_the_sites_and_they_add_up(name):
    """No numbers are compared: a token for which two experts are about as good is sent to the other one."""
    half = loaded(name, torch.bfloat16)
    found = sites(half)
    assert found.keys() == set(standard(loaded(name)))
    assert found[Site("resid_post", 1)].dtype == torch.bfloat16
    added = found[Site("resid_mid", 1)] + found[Site("mlp_out", 1)]
    assert torch.allclose(added.double(), found[Site("resid_post", 1)].double(), rtol=0.1, atol=0.1)
    if Site("expert_out", 1) in found and not ROWS[name].post[1]:
        weights, outs = found[Site("expert_weights", 1)], found[Site("expert_out", 1)]
        assert bool(((outs == 0).all(-1) >= (weights == 0)).all())
