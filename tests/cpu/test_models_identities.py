"""Each site is held to its equation (DESIGN §3), with projections and sums written out again here, in a few families; all of
them are in test_families_*.py and test_experts_*.py."""

from functools import partial

import pytest
import torch
from tests.tiny import attention_of, tiny, tiny_gpt2, tiny_llama, tiny_mistral, tiny_qwen2

from weft.ir.nodes import Site
from weft.models import Loaded, load, tapped

FEW = ("gemma2", "olmo2", "phi3", "gpt_oss", "bloom")
MODELS = [
    pytest.param((tiny_gpt2, "sdpa"), id="gpt2-sdpa"),
    pytest.param((tiny_gpt2, "eager"), id="gpt2-eager"),
    pytest.param((tiny_llama, "sdpa"), id="llama-sdpa"),
    pytest.param((tiny_llama, "eager"), id="llama-eager"),
    pytest.param((tiny_mistral, "sdpa"), id="mistral-sdpa"),
    pytest.param((tiny_qwen2, "sdpa"), id="qwen2-sdpa"),
    *(pytest.param((partial(tiny, kind), attention_of(kind)), id=kind) for kind in FEW),
    pytest.param((partial(tiny, "gpt_neox", use_parallel_residual=False), "sdpa"), id="gpt_neox-one-after-the-other"),
    pytest.param((partial(tiny, "gemma3"), "eager"), id="gemma3-eager"),
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


@pytest.fixture(params=["gpt2", "llama", *FEW], scope="module")
def plain(request) -> Sites:
    build = {"gpt2": tiny_gpt2, "llama": tiny_llama}.get(request.param) or partial(tiny, request.param)
    return Sites(load(build(seed=5, attention=attention_of(request.param)).double()))


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    # Llama's norms compute in float32 whatever the model's dtype.
    return left.shape == right.shape and torch.allclose(left, right, rtol=1e-6, atol=1e-6)


def biased(loaded: Loaded, x: torch.Tensor, weight: str, bias: str) -> torch.Tensor:
    out = x @ loaded.param(weight)
    return out + loaded.param(bias) if bias in loaded.card.params else out


def layer_path(loaded: Loaded) -> str:
    return f"{loaded.family.layers}.{LAYER}"


def read_through(sites: Sites, norm: str, stream: torch.Tensor) -> torch.Tensor:
    """What a sublayer reads: the stream, normed where the family has a norm there."""
    return sites.module(f"{layer_path(sites.loaded)}.{norm}", "output") if norm else stream


def normed(sites: Sites) -> torch.Tensor:
    return read_through(sites, sites.loaded.family.norm1, sites["resid_post", LAYER - 1])


def rms(loaded: Loaded, path: str, x: torch.Tensor) -> torch.Tensor:
    """An RMS norm of layer LAYER over the last axis, written out: Gemma's gains count from 1."""
    gain = loaded.param(f"param({layer_path(loaded)}.{path}.weight)") + loaded.card.family.startswith("gemma")
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + loaded.module.config.rms_norm_eps) * gain


def adds(loaded: Loaded, norm: str, given: torch.Tensor) -> torch.Tensor:
    """What goes on to the stream of what a projection gave: a norm of it where the family has one after the sublayer."""
    return rms(loaded, norm, given) if norm.endswith("layernorm") else given


def capped(loaded: Loaded, x: torch.Tensor) -> torch.Tensor:
    """Gemma 2's logits."""
    limit = {"gemma2": 3.0}.get(loaded.card.family)
    return x if limit is None else torch.tanh(x / limit) * limit


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
    with torch.no_grad():  # eager attention takes its softmax in float32 whatever the model's dtype
        assert torch.allclose(sites.output, sites.loaded.module(IDS).logits, atol=1e-5)


def test_streams_add_up(sites):
    before, attn, mlp = sites["resid_post", LAYER - 1], sites["attn_out", LAYER], sites["mlp_out", LAYER]
    assert same(before + attn + mlp, sites["resid_post", LAYER])
    if "resid_mid" not in sites.loaded.card.absent:
        assert same(before + attn, sites["resid_mid", LAYER])
    assert not same(before + attn, before) and not same(before + mlp, before)


def test_a_stream_between_is_absent_only_where_there_is_none(sites):
    parallel = getattr(sites.loaded.module.config, "use_parallel_residual", False)
    assert ("resid_mid" in sites.loaded.card.absent) is parallel


def test_embed_is_what_enters_layer_0(sites):
    assert same(sites["embed"] + sites["attn_out", 0] + sites["mlp_out", 0], sites["resid_post", 0])


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
    bare = expected + shift
    norm = {"q": sites.loaded.family.q_norm, "k": sites.loaded.family.k_norm}.get(name, "")
    if norm:
        flat = sites.loaded.card.family in ("olmo2", "olmoe")  # its norm is over all heads together
        found = rms(sites.loaded, norm, bare.flatten(2) if flat else bare)
        assert same(sites[name, LAYER], found.unflatten(-1, bare.shape[2:]) if flat else found)
        assert not same(sites[name, LAYER], bare)
        return
    assert same(sites[name, LAYER], bare)
    if sites.loaded.family.norm1:
        unnormed = torch.einsum("bpm,hmd->bphd", sites["resid_post", LAYER - 1], sites.loaded.param(weight))
        assert not same(sites[name, LAYER], unnormed + shift)


@pytest.mark.parametrize("kind", ["gpt_neox", "bloom"])
def test_q_k_v_of_each_head_lie_together_not_all_q_first(kind):
    sites = Sites(load(tiny(kind, seed=3, attention=attention_of(kind))))
    path = f"{layer_path(sites.loaded)}.{sites.loaded.family.qkv}"
    together, shape = sites.module(path, "output"), sites["q", LAYER].shape
    heads = together.unflatten(-1, (shape[2], -1))  # batch pos head 3·d_head
    for name, part in zip("qkv", heads.split(shape[3], dim=-1), strict=True):
        assert same(sites[name, LAYER], part)
    side_by_side = together.chunk(3, dim=-1)[0].unflatten(-1, shape[2:])
    assert not same(sites["q", LAYER], side_by_side)


def test_a_q_laid_out_head_last_would_be_wrong(sites):
    q = sites["q", LAYER]
    assert not same(q.flatten(2).unflatten(2, (q.shape[3], q.shape[2])).transpose(2, 3), q)


def test_rotary_turns_q_and_k_where_there_is_one(sites):
    turned = sites.loaded.card.family not in ("gpt2", "bloom")
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


def expected_scores(sites: Sites, layer: int) -> torch.Tensor:
    """scale · q kᵀ, capped, with a bias, as each family has it; the mask comes after."""
    loaded, config = sites.loaded, sites.loaded.module.config
    k = per_query_head(sites, sites["k_rot", layer])
    scale = 7**-0.5 if loaded.card.family in ("gemma2", "gemma3") else loaded.sizes["d_head"] ** -0.5
    products = torch.einsum("bqhd,bkhd->bhqk", sites["q_rot", layer], k) * scale
    if loaded.card.family == "gemma2":
        products = torch.tanh(products / config.attn_logit_softcapping) * config.attn_logit_softcapping
    if loaded.card.family == "bloom":  # 5 heads: slopes of 4, then the first of those of 8 that is new
        slopes = torch.tensor([2**-2, 2**-4, 2**-6, 2**-8, 2**-1], dtype=products.dtype)
        products = products + slopes[:, None, None] * torch.arange(7)
    return products


@pytest.mark.parametrize("layer", [1, 2])
def test_scores_are_scaled_products_under_the_causal_mask(sites, layer):
    config, products = sites.loaded.module.config, None
    if layer >= sites.loaded.sizes["n_layers"]:
        layer = 0
    products = expected_scores(sites, layer)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    kinds = getattr(config, "layer_types", None)
    sliding = kinds[layer] == "sliding_attention" if kinds else getattr(config, "sliding_window", None)
    if sliding:
        hidden |= torch.ones(7, 7, dtype=torch.bool).tril(-config.sliding_window)
    assert same(sites["scores", layer].masked_fill(hidden, 0.0), products.masked_fill(hidden, 0.0))
    assert bool(sites["scores", layer][..., hidden].isneginf().all())


def test_pattern_is_softmax_and_its_rows_sum_to_one(sites):
    scores, pattern = sites["scores", LAYER], sites["pattern", LAYER]
    path = f"param({layer_path(sites.loaded)}.self_attn.sinks)"
    if path in sites.loaded.card.params:  # to less than one: a sink takes its share
        sink = sites.loaded.param(path).exp()[:, None]
        assert same(pattern, scores.exp() / (scores.exp().sum(-1) + sink)[..., None])
        assert bool((pattern.sum(-1) < 1 - 1e-3).all())
        return
    assert same(scores.softmax(-1), pattern)
    assert same(pattern.sum(-1), torch.ones(2, sites.loaded.sizes["n_heads"], 7).double())


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
    total = total + (sites.loaded.param(bias) if bias in sites.loaded.card.params else 0.0)
    assert same(adds(sites.loaded, sites.loaded.family.attn_adds, total), sites["attn_out", LAYER])
    if sites.loaded.card.family in ("gemma2", "gemma3", "olmo2", "exaone4"):
        assert not same(total, sites["attn_out", LAYER])


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


ACTIVATION = {
    "gpt2": partial(torch.nn.functional.gelu, approximate="tanh"),
    "bloom": partial(torch.nn.functional.gelu, approximate="tanh"),
    "gemma2": partial(torch.nn.functional.gelu, approximate="tanh"),
    "gemma3": partial(torch.nn.functional.gelu, approximate="tanh"),
    "gpt_neox": torch.nn.functional.gelu,
    "gemma": partial(torch.nn.functional.gelu, approximate="tanh"),
    "starcoder2": partial(torch.nn.functional.gelu, approximate="tanh"),
    "arcee": lambda x: torch.relu(x) ** 2,
}
GATED = ("llama", "qwen3", "olmo2", "exaone4", "gemma", "gemma2", "gemma3", "phi3")


def test_neurons_before_and_after_the_activation(sites):
    loaded, at = sites.loaded, f"[{LAYER}]"
    if loaded.card.family in ("gpt_oss", "mixtral", "qwen3_moe", "olmoe"):
        assert "experts" in loaded.card.absent["mlp_pre"] and "experts" in loaded.card.absent["mlp_post"]
        return
    stream = None if loaded.family.parallel else sites["resid_mid", LAYER]
    x = read_through(sites, loaded.family.norm2, stream)
    into = biased(loaded, x, f"W_in{at}", f"b_in{at}")
    act = ACTIVATION.get(loaded.card.family, torch.nn.functional.silu)
    pre = biased(loaded, x, f"W_gate{at}", f"b_gate{at}") if loaded.card.family in GATED else into
    post = act(pre) * into if loaded.card.family in GATED else act(pre)
    assert same(sites["mlp_pre", LAYER], pre)
    assert same(sites["mlp_post", LAYER], post)
    given = biased(loaded, post, f"W_out{at}", f"b_out{at}")
    assert same(adds(loaded, loaded.family.mlp_adds, given), sites["mlp_out", LAYER])


def test_unembedding_the_final_norm_gives_the_logits(sites):
    loaded = sites.loaded
    last = sites["resid_post", loaded.sizes["n_layers"] - 1]
    assert same(capped(loaded, sites["final_norm"] @ loaded.param("W_U")), sites["logits"])
    assert same(loaded.apply("unembed", loaded.apply("final_norm", last)), sites["logits"])
    assert same(sites["logits"], sites.output)


def test_raw_modules_equal_plain_hooks(plain):
    loaded, seen = plain.loaded, {}

    def note(path):
        return lambda module, args, output: seen.setdefault(path, []).append(output)

    handles = [each.register_forward_hook(note(path)) for path, each in loaded.module.named_modules() if path]
    with torch.no_grad():
        loaded.module(IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    raw = [site for site in plain.values if site.path and site.name == "module.output" and site.item in ("", "0")]
    assert len(raw) > 20
    for site in raw:
        output = seen[site.path][site.call]
        output = next(iter(output.values())) if isinstance(output, dict) else output
        output = output[0] if isinstance(output, tuple) else output
        assert torch.allclose(plain.values[site], output, rtol=1e-5, atol=1e-5), site


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
