"""A user's own architecture by a table of facts: sites by equation, and what is said where the table is wrong."""

import pytest
import torch
from tests.cpu.own_decoders import TABLE, Mine, mine
from torch import nn

import weft
from weft.errors import ModelError, SiteError
from weft.models import load, register, unregister
from weft.models.identities import identities

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
HEADS = "blocks.0.mix.heads"


@pytest.fixture
def own():
    """Registers under the name "mine"; forgotten afterwards."""

    def add(**changes):
        return register("mine", Mine, n_heads=HEADS, **{**TABLE, **changes})

    yield add
    unregister("mine")


def without(*names):
    return dict.fromkeys(names, "")


FUSED = {**without("q", "k", "v"), "qkv": "mix.all"}


def test_ten_lines_give_every_site(own):
    own()
    module = mine()
    model = weft.load(module)
    assert model.card.sizes == {
        "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_model": 20, "d_head": 6, "d_vocab": 17, "d_mlp": 22,
    }  # fmt: skip
    expected = "embed q k v z head_out attn_out resid_mid mlp_pre mlp_post mlp_out resid_post final_norm logits"
    assert sorted(model.sites()) == sorted(expected.split())
    with model.trace(IDS) as run:
        logits, z, post = run.logits.save(), run.z[1].save(), run.mlp_post[2].save()
    block = module.blocks[1]
    taken = {}
    handles = [
        block.mix.out.register_forward_pre_hook(lambda _, args: taken.update(z=args[0])),
        module.blocks[2].feed.down.register_forward_pre_hook(lambda _, args: taken.update(post=args[0])),
    ]
    with torch.no_grad():
        assert torch.allclose(logits.value, module(IDS), atol=1e-5)
    for handle in handles:
        handle.remove()
    assert torch.allclose(z.value, taken["z"].unflatten(-1, (4, 6)), atol=1e-5)
    assert torch.allclose(post.value, taken["post"], atol=1e-5)


def test_writes_go_where_a_hook_would_put_them(own):
    own()
    module = mine()
    with weft.load(module).session() as s:
        clean, patched = s.run(IDS), s.run(IDS.flip(0))
        patched.z[1][:, -1, 3] = clean.z[1][:, -1, 3]
        patched.resid_mid[2][:, 2:] *= 0.5
        patched.logits.save("logits")
    kept = {}
    handle = module.blocks[1].mix.out.register_forward_pre_hook(lambda _, args: kept.update(z=args[0]))
    module(IDS)
    handle.remove()

    def patch(_, args):
        z = args[0].clone()
        z[:, -1, 18:24] = kept["z"][:, -1, 18:24]
        return (z,)

    def halve(block, args):
        x = args[0] + block.mix(block.first(args[0]))
        x[:, 2:] *= 0.5
        return x + block.feed(block.second(x))

    module.blocks[1].mix.out.register_forward_pre_hook(patch)
    with torch.no_grad():
        x = module.tok(IDS.flip(0)) + module.place(torch.arange(7))
        x = halve(module.blocks[2], (module.blocks[1](module.blocks[0](x)),))
        assert torch.allclose(s.results["logits"], module.read(module.last(x)), atol=1e-5)


def test_prompts_of_several_lengths_are_each_as_alone(own):
    own()
    module = mine()
    with weft.load(module).trace([[3, 1, 4], [1, 5, 9, 2, 6]]) as run:
        logits = run.logits.save()
    with torch.no_grad():
        assert torch.allclose(logits.value[0, -3:], module(torch.tensor([[3, 1, 4]]))[0], atol=1e-5)


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ({"attention": "side by side"}, FUSED),
        ({"attention": "by head", "parallel": True}, {**FUSED, "packing": "by group", "parallel": True}),
        ({"gated": True, "after": True}, {"gate": "feed.door", "attn_adds": "third", "mlp_adds": "fourth"}),
    ],
)
def test_the_equations_hold_for_other_ways_of_building(own, module, changes):
    own(**changes)
    found = identities(load(mine(**module)))
    assert len(found) >= 8 and all(each.holds for each in found), "\n".join(map(str, found))


@pytest.mark.parametrize(
    ("module", "changes", "equation"),
    [
        ({"attention": "by head"}, FUSED, "twice v gives twice z"),
        ({"attention": "side by side"}, {**FUSED, "packing": "by group"}, "twice v gives twice z"),
        ({"after": True}, {"mlp_adds": "fourth"}, "resid_pre + attn_out == resid_mid"),
        ({"after": True}, {"attn_adds": "third"}, "resid_mid + mlp_out == resid_post"),
        ({"parallel": True}, {}, "resid_pre + attn_out == resid_mid"),
        ({}, {"parallel": True}, "attn_out does not move mlp_out"),
        ({}, {"k": "mix.val", "v": "mix.key"}, "twice v gives twice z"),
        ({}, {"final_norm": "blocks.2.second"}, "unembed(final_norm) == logits"),
    ],
)
def test_a_wrong_table_is_refused_with_the_equation_that_fails(own, module, changes, equation):
    own(**changes)
    with pytest.raises(ModelError) as error:
        load(mine(**module))
    assert f"{equation}" in str(error.value) and "weft.models.inspect(model)" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"attn": "mixx"},
            "attn='mixx', but no layer of Mine (blocks.0, …) has a module at that path; did you mean mix",
        ),
        ({"embed": "token"}, "embed='token', but Mine has no module at that path; did you mean tok?"),
        ({"layers": "last"}, "layers='last' is a LayerNorm, not a list of layers"),
        ({"positions": "plaice"}, "did you mean place"),
    ],
)
def test_a_path_that_is_not_there_is_named(own, changes, said):
    own(**changes)
    with pytest.raises(ModelError) as error:
        load(mine())
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({**TABLE, "atn": "mix"}, "'atn' is no fact of a family's table; did you mean attn"),
        ({"embed": "tok"}, "must say layers, final_norm, unembed, attn, o, mlp"),
        ({**TABLE, "q": ""}, "must say q, k and v, or qkv"),
        ({**TABLE, "model_types": ("llama",)}, "has a table for model_type 'llama' already"),
    ],
)
def test_a_table_that_is_none_is_refused_where_it_is_given(facts, said):
    with pytest.raises(ModelError, match=r"register|table") as error:
        register("theirs", Mine, **facts)
    assert said in str(error.value)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ModelError, match="under another name"):
        register("llama", Mine, **TABLE)


def test_heads_that_nothing_tells_are_asked_for():
    register("mine", Mine, **TABLE)
    try:
        with pytest.raises(ModelError, match=r"how many heads.*n_heads=8"):
            load(mine())
        register("mine", Mine, n_heads=7, **TABLE)
        with pytest.raises(ModelError, match="which 7 heads cannot share"):
            load(mine())
    finally:
        unregister("mine")


def test_what_it_has_not_says_why(own):
    own()
    model = weft.load(mine())
    assert "code of its own" in model.support("pattern")
    with pytest.raises(SiteError, match="code of its own"), model.trace(IDS) as run:
        run.pattern[0].save()


def test_it_does_not_generate_without_a_cache(own):
    own()
    with pytest.raises(weft.WeftError, match="no cache"), weft.load(mine()).session() as s:
        s.generate(IDS, max_new_tokens=3)


def test_a_class_that_is_forgotten_is_a_raw_module_again(own):
    own()
    assert load(mine()).kind == "decoder"
    unregister("mine")
    assert load(mine()).kind == "module"


def test_gradients_reach_its_sites(own):
    own()
    module = mine()
    with weft.load(module).trace(IDS) as run:
        found = weft.grad(run.logits[:, -1, 3].sum(), run.resid_post[0]).save()
    kept: list[torch.Tensor] = []
    module.blocks[0].register_forward_hook(lambda _, __, out: kept.append(out))
    expected = torch.autograd.grad(module(IDS)[:, -1, 3].sum(), kept)[0]
    assert torch.allclose(found.value, expected, atol=1e-5)


def test_a_transformers_model_of_a_new_type_keeps_its_pattern():
    from tests.tiny import tiny_llama
    from transformers import LlamaForCausalLM

    class NewForCausalLM(LlamaForCausalLM):
        pass

    module = tiny_llama(5)
    module.__class__ = NewForCausalLM
    register(
        "new", NewForCausalLM, embed="model.embed_tokens", layers="model.layers", final_norm="model.norm",
        unembed="lm_head", norm1="input_layernorm", norm2="post_attention_layernorm", attn="self_attn",
        q="self_attn.q_proj", k="self_attn.k_proj", v="self_attn.v_proj", o="self_attn.o_proj", mlp="mlp",
        gate="mlp.gate_proj", mlp_in="mlp.up_proj", mlp_out="mlp.down_proj", rms=True,
    )  # fmt: skip
    try:
        loaded = load(module)
        assert loaded.card.family == "new" and {"pattern", "q_rot"} <= {spec.site.name for spec in loaded.card.sites}
        assert isinstance(loaded.module, nn.Module) and all(each.holds for each in identities(loaded))
    finally:
        unregister("new")


def test_what_the_document_shows_is_what_happens(capsys):
    import re
    from pathlib import Path

    (code,) = re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs/own-models.md").read_text(), re.DOTALL
    )
    space: dict = {}
    try:
        exec(compile(code, "own-models.md", "exec"), space)
        shown = code[code.index('    embed="tok"') : code.index(")\n\nmodel =")]
        assert space["s"].results["patched"].shape == (1, 100) and space["proposal"].holds
        assert shown in space["proposal"].call
        assert "10 of 10 equations hold" in capsys.readouterr().out
    finally:
        unregister("mine")
