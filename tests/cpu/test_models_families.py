"""Every family besides: writes go on, shapes hold at other sizes, padding is not seen, and what is absent says why."""

import pytest
import torch
from tests.tiny import KINDS, tiny

import weft
from weft.errors import SiteError
from weft.ir.nodes import Site
from weft.models import load, tapped
from weft.models.families import FAMILIES, resolved
from weft.models.names import resolve

IDS = torch.tensor([[3, 1, 4, 1, 5, 9]])


@pytest.fixture(params=list(KINDS), scope="module")
def loaded(request):
    return load(tiny(request.param, seed=7))


def run(loaded, taps, ids=IDS, **more):
    with torch.no_grad(), tapped(loaded, taps):
        return loaded.forward({"tokens": ids, **more})


def nudged(value):
    return value + torch.linspace(0.1, 0.5, value.numel()).view(value.shape)


def standard(loaded) -> list[Site]:
    return [spec.site for spec in loaded.card.sites if not spec.site.path]


def test_every_standard_site_when_written_moves_the_logits(loaded):
    base = run(loaded, {})
    for site in standard(loaded):
        assert (run(loaded, {site: nudged}) - base).abs().max() > 1e-4, site


def test_a_site_written_with_its_own_value_changes_nothing(loaded):
    taps = {site: lambda value: value.clone() for site in standard(loaded)}
    assert torch.allclose(run(loaded, taps), run(loaded, {}), atol=1e-4)


@pytest.mark.parametrize(("batch", "pos"), [(1, 1), (4, 9)])
def test_shapes_hold_at_other_sizes(loaded, batch, pos):
    shapes = {}
    taps = {
        spec.site: lambda value, site=spec.site: shapes.update({site: tuple(value.shape)}) for spec in loaded.card.sites
    }
    run(loaded, taps, torch.arange(batch * pos).view(batch, pos) % 17)
    assert shapes == {spec.site: spec.type(batch, pos).shape for spec in loaded.card.sites}


def test_padded_rows_give_each_rows_own_numbers(loaded):
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [0, 0, 2, 7, 1, 8, 2]])
    with torch.no_grad():
        alone = loaded.forward({"tokens": ids[1:, 2:]})
    for taps in ({}, {Site("pattern", 0): lambda value: None}):  # the model's own attention, and weft's
        assert torch.allclose(run(loaded, taps, ids, start=torch.tensor([0, 2]))[1:, 2:], alone, atol=1e-4)


def test_a_families_table_holds_only_for_configurations_that_it_describes():
    config = tiny("bloom", apply_residual_connection_post_layernorm=True).config
    assert resolved(FAMILIES["bloom"], config) is None
    assert load(tiny("bloom", apply_residual_connection_post_layernorm=True)).family is None


def test_a_site_that_parallel_blocks_have_not_is_refused_with_the_reason():
    with pytest.raises(SiteError, match="both read the stream that enters the layer"):
        resolve("resid_mid", 0, load(tiny("gpt_neox")).card)


@pytest.mark.parametrize("hook", ["blocks.0.attn.hook_q", "ln_final.hook_normalized"])
def test_hooks_of_other_tools_that_are_a_neighbour_here_are_refused(hook):
    with pytest.raises(SiteError, match="there it is taken before the norm"):
        resolve(hook, None, load(tiny("gemma3")).card)


@pytest.mark.parametrize("kind", ["gemma3", "gpt_oss"])
def test_steps_beyond_a_window_have_patterns_over_all_keys(kind):
    """Layer 0 sees 4 positions, layer 2 all; the keys before the window are there, and get nothing."""
    with weft.load(tiny(kind, seed=3)).session(plan="reference") as s:
        run = s.generate([[3, 1, 4, 1, 5, 9, 2]], max_new_tokens=3)
        near, far = run.step(2).pattern[0].save(), run.step(2).pattern[2].save()
    assert near.value.shape == far.value.shape == (1, 4, 1, 9)
    assert bool((near.value[..., :5] == 0).all()) and bool((near.value[..., 5:] > 0).all())
    assert bool((far.value > 0).all())
