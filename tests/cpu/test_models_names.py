"""What users of the field call sites, and what they are told when there is no such thing."""

import pytest
import torch
from tests.tiny import tiny, tiny_gpt2, tiny_llama

import weft
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
        ("blocks.2.hook_in", None, Site("resid_post", 1)),
        ("blocks.1.hook_mlp_in", None, Site("module.input", None, "model.layers.1.post_attention_layernorm")),
        ("layers_output", 1, Site("resid_post", 1)),
        ("layers_output[-1]", None, Site("resid_post", 2)),
        ("layers_input", 0, Site("embed")),
        ("attentions_output[1]", None, Site("attn_out", 1)),
        ("mlps_output", 2, Site("mlp_out", 2)),
        ("mlps_input", 2, Site("module.input", None, "model.layers.2.mlp")),
        ("attention_probabilities", 0, Site("pattern", 0)),
        ("token_embeddings", None, Site("module.output", None, "model.embed_tokens")),
        ("layers.1.mlp", None, Site("module.output", None, "model.layers.1.mlp")),
        ("layers.1.self_attn.output", None, Site("module.output", None, "model.layers.1.self_attn")),
        ("layers.1.attention", None, Site("module.output", None, "model.layers.1.self_attn")),
        ("model.layers.0.mlp.down_proj.input", None, Site("module.input", None, "model.layers.0.mlp.down_proj")),
        ("model.ln_final", None, Site("module.output", None, "model.norm")),
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
        ("layers_output", "say which: layers_output[0] … layers_output[2]"),
        ("layers_output[3]", "layers 0 … 2"),
        ("layer_output", "did you mean layers_output"),
        ("next_token_probs", "torch.softmax(run.logits[:, -1], -1)"),
        ("routers_output", "see router_logits"),
        ("hook_pos_embed", "position embeddings have no batch axis"),
        ("blocks.0.mlp.hook_expert_weights", "see router_logits, expert_weights"),
        ("blocks.1.ln2.hook_normalized", "before the norm's gain"),
        ("layers.1.mlpp", "did you mean model.layers.1.mlp"),
        ("layers.9.mlp", "layers 0 … 2"),
        ("mlp.down_proj", "may be model.layers.0.mlp.down_proj, model.layers.1.mlp.down_proj"),
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


IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
NAMES = {  # another tool's name, the module whose input or output it is there, in layer 1 of this model
    "gpt2": {
        "layers_output[1]": ("transformer.h.1", "output"),
        "attentions_output[1]": ("transformer.h.1.attn", "output"),
        "mlps_input[1]": ("transformer.h.1.mlp", "input"),
        "layers.1.mlp": ("transformer.h.1.mlp", "output"),
        "h.1.attn.c_proj.input": ("transformer.h.1.attn.c_proj", "input"),
        "hook_embed": ("transformer.wte", "output"),
        "blocks.1.hook_mlp_in": ("transformer.h.1.ln_2", "input"),
        "blocks.1.ln1.hook_normalized": ("transformer.h.1.ln_1", "output"),
    },
    "gemma2": {  # norms after the sublayers: what a module gives is not what is added
        "layers_output[1]": ("model.layers.1", "output"),
        "attentions_output[1]": ("model.layers.1.self_attn", "output"),
        "mlps_output[1]": ("model.layers.1.mlp", "output"),
        "blocks.1.hook_attn_out": ("model.layers.1.post_attention_layernorm", "output"),
        "blocks.1.attn.hook_out": ("model.layers.1.self_attn", "output"),
    },
    "gpt_neox": {
        "layers.1.self_attn": ("gpt_neox.layers.1.attention", "output"),
        "attentions_input[1]": ("gpt_neox.layers.1.attention", "input"),
        "lm_head": ("lm_head", "output"),
        "blocks.1.hook_mlp_in": ("gpt_neox.layers.1.post_attention_layernorm", "input"),
    },
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_gives_what_a_plain_hook_at_that_module_gives(kind):
    module = tiny_gpt2(3) if kind == "gpt2" else tiny(kind, 3)
    model, found = weft.load(module), {}
    names = {name: at for name, at in NAMES[kind].items() if name != "lm_head"}
    with model.trace(IDS) as run:
        for name in names:
            run[name].save(name)
    saved = run.session.results

    def first(value):
        return value[0] if isinstance(value, tuple) else value

    for name, (path, side) in names.items():
        part = module.get_submodule(path)
        if side == "output":
            handle = part.register_forward_hook(lambda _, __, out, name=name: found.update({name: first(out)}))
        else:
            handle = part.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: found.update({name: args[0] if args else kwargs["hidden_states"]}),
                with_kwargs=True,
            )
        with torch.no_grad():
            module(IDS)
        handle.remove()
        assert torch.allclose(saved[name], found[name], atol=1e-6), name


def test_nnterps_names_are_written_and_stacked_as_sites_are():
    model = weft.load(tiny_llama(3))
    with model.session() as s:
        one, other = s.run(IDS), s.run(IDS)
        one.layers_output[1][:, -1] = 0.0
        other.resid_post[1][:, -1] = 0.0
        one.logits.save("one")
        other.logits.save("other")
        other.layers_output[:].save("every")
    assert torch.equal(s.results["one"], s.results["other"])
    assert s.results["every"].shape == (3, 2, 7, 16)


def test_a_name_that_is_assigned_without_a_layer_is_refused():
    with pytest.raises(SiteError, match=r"run.mlps_output\[layer\]"), weft.load(tiny_llama()).trace(IDS) as run:
        run.mlps_output = 0.0


def test_an_embedding_that_is_multiplied_on_its_way_is_no_hook_embed():
    with pytest.raises(SiteError, match="see embed"):
        resolve("hook_embed", None, load(tiny("gemma")).card)
