"""Each site is held to its equation (DESIGN §3), with projections and sums written out again here."""

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama, tiny_mistral, tiny_qwen2

from weft.ir.nodes import Site
from weft.models import Loaded, load, tapped

MODELS = [
    pytest.param((tiny_gpt2, "sdpa"), id="gpt2-sdpa"),
    pytest.param((tiny_gpt2, "eager"), id="gpt2-eager"),
    pytest.param((tiny_llama, "sdpa"), id="llama-sdpa"),
    pytest.param((tiny_llama, "eager"), id="llama-eager"),
    pytest.param((tiny_mistral, "sdpa"), id="mistral-sdpa"),
    pytest.param((tiny_qwen2, "sdpa"), id="qwen2-sdpa"),
]
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
LAYER = 1


class Sites:
    """Every site of one forward, by name: `sites["z", 1]`."""

    def __init__(self, loaded: Loaded, ids: torch.Tensor = IDS) -> None:
        self.loaded, self.values, self.order = loaded, {}, []
        with torch.no_grad(), tapped(loaded, {spec.site: self._keep(spec.site) for spec in loaded.card.sites}):
            self.output = loaded.forward({"tokens": ids})

    def _keep(self, site: Site):
        def keep(value: torch.Tensor) -> None:
            self.values[site] = value.clone()
            self.order.append(site)

        return keep

    def __getitem__(self, key) -> torch.Tensor:
        return self.values[Site(*key) if isinstance(key, tuple) else Site(key)]

    def module(self, path: str, side: str, item: str = "") -> torch.Tensor:
        return self.values[Site(f"module.{side}", None, path, 0, item)]


@pytest.fixture(params=MODELS, scope="module")
def sites(request) -> Sites:
    build, attention = request.param
    return Sites(load(build(seed=3, attention=attention).double()))


@pytest.fixture(params=["gpt2", "llama"], scope="module")
def plain(request) -> Sites:
    return Sites(load({"gpt2": tiny_gpt2, "llama": tiny_llama}[request.param](seed=5).double()))


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    # Llama's norms compute in float32 whatever the model's dtype.
    return left.shape == right.shape and torch.allclose(left, right, rtol=1e-6, atol=1e-6)


def biased(loaded: Loaded, x: torch.Tensor, weight: str, bias: str) -> torch.Tensor:
    out = x @ loaded.param(weight)
    return out + loaded.param(bias) if bias in loaded.card.params else out


def layer_path(loaded: Loaded) -> str:
    return f"{loaded.family.layers}.{LAYER}"


def normed(sites: Sites) -> torch.Tensor:
    return sites.module(f"{layer_path(sites.loaded)}.{sites.loaded.family.norm1}", "output")


def per_query_head(sites: Sites, kv: torch.Tensor) -> torch.Tensor:
    """k or v with each kv head repeated for its group: [batch, pos, head, d_head]."""
    return kv.repeat_interleave(sites.loaded.sizes["n_heads"] // kv.shape[2], dim=2)


def test_taps_are_called_in_the_cards_order(sites):
    assert sites.order == [spec.site for spec in sites.loaded.card.sites]


def test_shapes_and_dtypes_are_the_cards(sites):
    for spec in sites.loaded.card.sites:
        value = sites.values[spec.site]
        assert (tuple(value.shape), str(value.dtype)) == (spec.type(2, 7).shape, f"torch.{spec.dtype}"), spec.site


def test_reading_everything_leaves_the_output_as_it_is(sites):
    with torch.no_grad():
        assert same(sites.output, sites.loaded.module(IDS).logits)


def test_streams_add_up(sites):
    before = sites["resid_post", LAYER - 1]
    assert same(before + sites["attn_out", LAYER], sites["resid_mid", LAYER])
    assert same(sites["resid_mid", LAYER] + sites["mlp_out", LAYER], sites["resid_post", LAYER])


def test_embed_is_what_enters_layer_0(sites):
    assert same(sites["embed"] + sites["attn_out", 0], sites["resid_mid", 0])


def test_gpt2_embed_has_positions_in_it():
    sites = Sites(load(tiny_gpt2(seed=1)))
    tokens = sites.loaded.param("W_E")[IDS]
    assert same(sites["embed"], tokens + sites.loaded.param("W_pos")[: IDS.shape[1]])
    assert not same(sites["embed"], tokens)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_q_k_v_are_the_projections_of_the_normed_stream(sites, name):
    weight, bias = f"W_{name.upper()}[{LAYER}]", f"b_{name.upper()}[{LAYER}]"
    expected = torch.einsum("bpm,hmd->bphd", normed(sites), sites.loaded.param(weight))
    shift = sites.loaded.param(bias) if bias in sites.loaded.card.params else 0.0
    assert same(sites[name, LAYER], expected + shift)
    unnormed = torch.einsum("bpm,hmd->bphd", sites["resid_post", LAYER - 1], sites.loaded.param(weight))
    assert not same(sites[name, LAYER], unnormed + shift)


def test_a_q_laid_out_head_last_would_be_wrong(sites):
    q = sites["q", LAYER]
    assert not same(q.flatten(2).unflatten(2, (q.shape[3], q.shape[2])).transpose(2, 3), q)


def test_rotary_turns_q_and_k_where_there_is_one(sites):
    turned = sites.loaded.card.family == "llama"
    for name, rotated in (("q", "q_rot"), ("k", "k_rot")):
        assert same(sites[name, LAYER], sites[rotated, LAYER]) is not turned
        assert same(sites[name, LAYER][:, 0], sites[rotated, LAYER][:, 0])  # position 0 is turned by no angle


def test_rotary_is_the_turn_of_halves():
    sites = Sites(load(tiny_llama(seed=2)))
    q, d_head = sites["q", LAYER], 6
    angle = torch.arange(7)[:, None] / 10000.0 ** (torch.arange(0, d_head, 2) / d_head)  # pos, d_head / 2
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    low, high = q[..., : d_head // 2], q[..., d_head // 2 :]
    assert same(sites["q_rot", LAYER], torch.cat([low * cos - high * sin, high * cos + low * sin], -1))


def test_scores_are_scaled_products_under_the_causal_mask(sites):
    k = per_query_head(sites, sites["k_rot", LAYER])
    products = torch.einsum("bqhd,bkhd->bhqk", sites["q_rot", LAYER], k) / sites.loaded.sizes["d_head"] ** 0.5
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    if window := getattr(sites.loaded.module.config, "sliding_window", None):
        hidden |= torch.ones(7, 7, dtype=torch.bool).tril(-window)
    assert same(sites["scores", LAYER].masked_fill(hidden, 0.0), products.masked_fill(hidden, 0.0))
    assert bool(sites["scores", LAYER][..., hidden].isneginf().all())


def test_pattern_is_softmax_and_its_rows_sum_to_one(sites):
    assert same(sites["scores", LAYER].softmax(-1), sites["pattern", LAYER])
    assert same(sites["pattern", LAYER].sum(-1), torch.ones(2, sites.loaded.sizes["n_heads"], 7).double())


def test_z_mixes_values_by_pattern(sites):
    v = per_query_head(sites, sites["v", LAYER])
    assert same(sites["z", LAYER], torch.einsum("bhqk,bkhd->bqhd", sites["pattern", LAYER], v))


def test_grouped_heads_are_neighbours_not_strided():
    sites = Sites(load(tiny_llama(seed=4)))
    v = sites["v", LAYER]
    assert v.shape[2] == 2
    strided = v.repeat(1, 1, 2, 1)
    assert not same(sites["z", LAYER], torch.einsum("bhqk,bkhd->bqhd", sites["pattern", LAYER], strided))


def test_head_out_sums_to_attn_out(sites):
    total, bias = sites["head_out", LAYER].sum(2), f"b_O[{LAYER}]"
    assert same(
        total + (sites.loaded.param(bias) if bias in sites.loaded.card.params else 0.0), sites["attn_out", LAYER]
    )


def test_head_out_is_the_projection_of_that_head_alone(sites):
    """A second way to the same: the model's own projection, with the other heads' z put to zero."""
    loaded = sites.loaded
    projection = loaded.module.get_submodule(f"{layer_path(loaded)}.{loaded.family.o}")
    for head in range(loaded.sizes["n_heads"]):
        alone = torch.zeros_like(sites["z", LAYER])
        alone[:, :, head] = sites["z", LAYER][:, :, head]
        with torch.no_grad():
            share = projection(alone.flatten(2)) - projection(torch.zeros_like(alone.flatten(2)))
        assert same(share, sites["head_out", LAYER][:, :, head])


def test_z_through_W_O_is_head_out(sites):
    assert same(
        torch.einsum("bphd,hdm->bphm", sites["z", LAYER], sites.loaded.param(f"W_O[{LAYER}]")),
        sites["head_out", LAYER],
    )


def test_neurons_before_and_after_the_activation(sites):
    loaded, path = sites.loaded, f"{layer_path(sites.loaded)}.{sites.loaded.family.norm2}"
    x, at = sites.module(path, "output"), f"[{LAYER}]"
    into = biased(loaded, x, f"W_in{at}", f"b_in{at}")
    if loaded.card.family == "gpt2":
        pre, post = into, torch.nn.functional.gelu(into, approximate="tanh")
    else:
        pre = biased(loaded, x, f"W_gate{at}", f"b_gate{at}")
        post = torch.nn.functional.silu(pre) * into
    assert same(sites["mlp_pre", LAYER], pre)
    assert same(sites["mlp_post", LAYER], post)
    assert same(biased(loaded, post, f"W_out{at}", f"b_out{at}"), sites["mlp_out", LAYER])


def test_unembedding_the_final_norm_gives_the_logits(sites):
    loaded = sites.loaded
    last = sites["resid_post", loaded.sizes["n_layers"] - 1]
    assert same(sites["final_norm"] @ loaded.param("W_U"), sites["logits"])
    assert same(loaded.apply("unembed", loaded.apply("final_norm", last)), sites["logits"])
    assert same(sites["logits"], sites.output)


def test_raw_modules_equal_plain_hooks(plain):
    loaded, seen = plain.loaded, {}

    def note(path):
        return lambda module, args, output: seen.update({path: output})

    handles = [each.register_forward_hook(note(path)) for path, each in loaded.module.named_modules() if path]
    with torch.no_grad():
        loaded.module(IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    raw = [site for site in plain.values if site.path and site.name == "module.output" and site.item in ("", "0")]
    assert len(raw) > 20
    for site in raw:
        output = seen[site.path]
        output = next(iter(output.values())) if isinstance(output, dict) else output
        assert same(plain.values[site], output[0] if isinstance(output, tuple) else output), site


def test_sdpa_and_eager_give_the_same_sites():
    for build in (tiny_gpt2, tiny_llama):
        left, right = (Sites(load(build(seed=6, attention=kind))) for kind in ("sdpa", "eager"))
        # Eager attention also gives its weights and takes an explicit mask, so a few raw tensors have other names.
        shared = left.values.keys() & right.values.keys()
        assert {site for site in left.values if not site.path} <= shared
        for site in shared:
            assert torch.allclose(left.values[site], right.values[site], atol=1e-5), site


def test_a_layer_that_scales_by_its_number_is_followed():
    """GPT-2's option: scores divided by layer + 1 besides."""
    sites = Sites(load(tiny_gpt2(seed=1, scale_attn_by_inverse_layer_idx=True)))
    q, k = sites["q_rot", 1], sites["k_rot", 1]
    products = torch.einsum("bqhd,bkhd->bhqk", q, k) / 4**0.5 / 2
    assert torch.allclose(sites["scores", 1][..., -1, :], products[..., -1, :], atol=1e-5)
