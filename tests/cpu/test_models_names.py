"""What users of the field call sites, and what they are told when there is no such thing."""

import pytest
from tests.tiny import tiny_gpt2, tiny_llama

from weft.errors import SiteError
from weft.ir.nodes import Site
from weft.models import load
from weft.models.names import names, resolve, resolve_module, support


@pytest.fixture(scope="module")
def gpt2():
    return load(tiny_gpt2()).card


@pytest.fixture(scope="module")
def llama():
    return load(tiny_llama()).card


@pytest.mark.parametrize(
    ("name", "layer", "site"),
    [
        ("z", 1, Site("z", 1)),
        ("z", -1, Site("z", 2)),
        ("z[2]", None, Site("z", 2)),
        ("logits", None, Site("logits")),
        ("resid_pre", 0, Site("embed")),
        ("resid_pre", 2, Site("resid_post", 1)),
        ("blocks.2.attn.hook_z", None, Site("z", 2)),
        ("blocks.0.hook_resid_pre", None, Site("embed")),
        ("blocks.0.hook_resid_mid", None, Site("resid_mid", 0)),
        ("blocks.1.attn.hook_rot_q", None, Site("q_rot", 1)),
        ("blocks.1.mlp.hook_pre_linear", None, Site("module.output", None, "model.layers.1.mlp.up_proj")),
        ("hook_embed", None, Site("module.output", None, "model.embed_tokens")),
        ("module(model.norm).input", None, Site("module.input", None, "model.norm")),
    ],
)
def test_a_name_means_a_site(llama, name, layer, site):
    assert resolve(name, layer, llama) == site
    assert site in llama.by_site


def test_a_layer_norms_output_is_transformer_lens_normalized(gpt2):
    assert resolve("ln_final.hook_normalized", None, gpt2) == Site("final_norm")
    assert resolve("blocks.1.ln2.hook_normalized", None, gpt2).path == "transformer.h.1.ln_2"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ln_final.hook_normalized", "before the norm's gain"),
        ("blocks.0.ln1.hook_scale", "not a value that passes between modules"),
        ("blocks.0.hook_q_input", "only in TransformerLens"),
        ("blocks.0.attn.hook_zz", "did you mean blocks.0.attn.hook_z"),
        ("blocks.7.attn.hook_z", "layers 0 … 2"),
        ("patern", "did you mean pattern"),
        ("module(model.layers.0.mpl).output", "did you mean model.layers.0.mlp"),
        ("z", "say which: z[0] … z[2]"),
    ],
)
def test_what_is_no_site_is_refused_with_the_way_out(llama, name, reason):
    with pytest.raises(SiteError) as error:
        resolve(name, None, llama)
    assert reason in str(error.value)


def test_a_site_of_the_whole_model_has_no_layers(llama):
    with pytest.raises(SiteError, match="without \\[2\\]"):
        resolve("logits", 2, llama)


def test_a_call_or_tensor_that_is_not_there_is_named(llama):
    with pytest.raises(SiteError, match="called 1 times"):
        resolve_module("lm_head", "output", llama, call=1)
    with pytest.raises(SiteError, match=r"choose among '0', '1'"):
        resolve_module("model.rotary_emb", "output", llama)
    assert resolve_module("model.rotary_emb", "output", llama, item="1").item == "1"


def test_support_is_empty_or_a_reason(llama):
    assert support("pattern", llama) == "" == support("resid_pre", llama)
    assert "did you mean" in support("patern", llama)


def test_the_names_are_those_of_the_design(llama):
    expected = (
        "embed q k v q_rot k_rot scores pattern z head_out attn_out resid_mid mlp_pre mlp_post mlp_out resid_post"
    )
    assert names(llama) == [*expected.split(), "final_norm", "logits", "resid_pre"]
