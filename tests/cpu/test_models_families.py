"""What is absent says why, and windows in generation. What every family is held to is in test_families_*.py."""

import pytest
from tests.tiny import tiny

import weft
from weft.errors import SiteError
from weft.models import load
from weft.models.families import FAMILIES, resolved
from weft.models.names import resolve


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
