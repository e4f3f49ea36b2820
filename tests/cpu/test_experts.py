"""Router logits, weights and outputs of experts, held to a second implementation that goes token by token."""

import pytest
import torch
from experts_zoo import EXPERTS, OTHERS
from family_zoo import build
from tests.cpu import naive_experts as naive
from tests.tiny import tiny

from weft.errors import SiteError
from weft.ir.nodes import Site
from weft.models import Loaded, load, tapped
from weft.models.names import resolve

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
LAYER = 1


def model(kind: str, **changes: object) -> torch.nn.Module:
    return build(kind, seed=4, **changes).double()


class Sites:
    """Every standard site of one pass: `sites["expert_out"]` in layer LAYER."""

    def __init__(self, kind: str) -> None:
        self.kind, self.loaded, self.values = kind.split(",")[0], load(model(kind)), {}
        self.output = run(self.loaded, {spec.site: self._keep(spec.site) for spec in self.loaded.card.sites})
        self.config, family = self.loaded.module.config, self.loaded.family
        self.layer = self.loaded.module.get_submodule(f"{family.layers}.{LAYER}")
        router = self.layer.get_submodule(family.router)
        self.linear = router
        self.router = (
            self.layer.get_submodule(family.mlp) if self.kind in ("lfm2_moe", "minimax_m2", "afmoe") else router
        )
        self.experts = self.layer.get_submodule(family.experts)
        self.mlp = f"{family.layers}.{LAYER}.{family.mlp}"

    def _keep(self, site: Site):
        return lambda value: self.values.update({site: value.clone()})

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[Site(name, LAYER)]

    @property
    def into(self) -> torch.Tensor:
        """What the MLP reads."""
        return self.values[Site("module.input", None, self.mlp, 0, "")]


def run(loaded: Loaded, taps=None, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad(), tapped(loaded, taps or {}):
        return loaded.forward({"tokens": ids})


def at(name: str, layer: int = LAYER) -> Site:
    return Site(name, layer)


def same(left: torch.Tensor, right: torch.Tensor) -> bool:
    # Routers and norms compute in float32 whatever the model's dtype.
    return left.shape == right.shape and torch.allclose(left.double(), right.double(), rtol=1e-5, atol=1e-5)


@pytest.fixture(params=[*EXPERTS, *OTHERS], scope="module")
def sites(request) -> Sites:
    return Sites(request.param)


def test_router_logits_are_its_linear_map_of_what_the_mlp_reads(sites):
    linear = next(each for name, each in sites.linear.named_parameters() if name.endswith("weight"))
    bias = getattr(sites.linear, "bias", None)
    expected = torch.einsum("bpm,em->bpe", sites.into, linear.double())
    expected = expected if bias is None else expected + bias
    assert same(sites["router_logits"], expected)
    assert not same(sites["router_logits"], expected.flip(-1))
    assert not same(sites["router_logits"], expected.softmax(-1))
    if sites.loaded.family.norm2:
        unnormed = torch.einsum("bpm,em->bpe", sites["resid_mid"], linear.double())
        assert not same(sites["router_logits"], unnormed if bias is None else unnormed + bias)


def test_expert_weights_are_the_chosen_experts_weights_and_0(sites):
    expected = naive.weights(sites.kind, sites["router_logits"], sites.config, sites.router)
    assert same(sites["expert_weights"], expected)
    chosen = (sites["expert_weights"] != 0).sum(-1)
    assert bool((chosen == sites.config.num_experts_per_tok).all()) and chosen.max() < expected.shape[-1]
    assert not same(sites["expert_weights"], sites["router_logits"].softmax(-1))
    assert not same(sites["expert_weights"], expected.flip(-1))


def test_expert_out_is_what_each_chosen_expert_adds(sites):
    expected = naive.outs(sites.kind, sites.into, sites["expert_weights"], sites.experts) * sites.loaded.family.times
    assert same(sites["expert_out"], expected)
    assert not same(sites["expert_out"], expected.flip(2))
    unweighted = naive.outs(sites.kind, sites.into, (sites["expert_weights"] != 0).double(), sites.experts)
    assert not same(sites["expert_out"], unweighted)
    assert bool((sites["expert_out"][sites["expert_weights"] == 0] == 0).all())


def test_what_experts_add_sums_to_what_the_mlp_adds(sites):
    total = sites["expert_out"].sum(2)
    shared = naive.shared(sites, sites.mlp, sites.into)
    whole = total + shared * sites.loaded.family.times
    if sites.loaded.family.mlp_adds:  # a norm after it
        after = sites.layer.get_submodule(sites.loaded.family.mlp_adds)
        assert same(after(whole), sites["mlp_out"]) and not same(whole, sites["mlp_out"])
        return
    assert same(whole, sites["mlp_out"])
    if isinstance(shared, torch.Tensor):
        assert not same(total, sites["mlp_out"])


def test_written_logits_choose_other_experts(sites):
    def turned(value: torch.Tensor) -> torch.Tensor:
        return -value

    seen = {}
    logits = run(sites.loaded, {
        at("router_logits"): turned,
        at("expert_weights"): lambda value: seen.update(weights=value.clone()),
        at("expert_out"): lambda value: seen.update(outs=value.clone()),
    })  # fmt: skip
    expected = naive.weights(sites.kind, -sites["router_logits"], sites.config, sites.router)
    assert same(seen["weights"], expected) and not same(seen["weights"], sites["expert_weights"])
    outs = naive.outs(sites.kind, sites.into, expected, sites.experts) * sites.loaded.family.times
    assert same(seen["outs"], outs)
    assert same(logits, run(sites.loaded, {at("expert_weights"): lambda value: expected.to(value.dtype)}))
    assert not same(logits, sites.output)


def test_an_expert_of_weight_0_is_one_that_adds_nothing(sites):
    used = sites["expert_weights"].flatten(0, 1).sum(0).argmax()

    def without(value: torch.Tensor) -> torch.Tensor:
        return value.index_fill(2, used, 0.0)

    left = run(sites.loaded, {at("expert_weights"): without})
    assert same(left, run(sites.loaded, {at("expert_out"): without}))
    assert not same(left, sites.output)
    everywhere = run(sites.loaded, {at("expert_weights"): torch.ones_like})
    outs = naive.outs(sites.kind, sites.into, torch.ones_like(sites["expert_weights"]).double(), sites.experts)
    total = run(sites.loaded, {at("expert_out"): lambda value: outs * sites.loaded.family.times})
    assert same(everywhere, total)


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm"])
@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_however_experts_are_computed_they_give_the_same(kind, implementation):
    seen = {}
    for way in ("eager", implementation):
        other = model(kind, intermediate_size=24).float()
        other.config._experts_implementation = way
        run(load(other), {at("expert_out"): lambda value, way=way: seen.update({way: value.clone()})})
    assert same(seen["eager"], seen[implementation])


def test_layers_without_experts_say_so():
    loaded = load(model("qwen2_moe"))
    with pytest.raises(SiteError, match=r"no router_logits\[0\]: its MLP is one.*there in layers 1, 2"):
        resolve("router_logits", 0, loaded.card)
    with pytest.raises(SiteError, match=r"no mlp_pre\[2\]: its MLP is several experts.*there in layers 0"):
        resolve("mlp_pre", -1, loaded.card)
    assert resolve("router_logits", -1, loaded.card) == Site("router_logits", 2)
    with pytest.raises(SiteError, match="no router_logits: its MLP is one"):
        resolve("router_logits", 0, load(tiny("qwen3")).card)


def test_axes_are_named(sites):
    card, count = sites.loaded.card, sites.loaded.sizes["n_experts"]
    assert card.by_site[at("router_logits")][1].axes == ("batch", "pos", "expert")
    spec = card.by_site[at("expert_out")][1]
    assert spec.axes == ("batch", "pos", "expert", "d_model") and spec.dims[2].const == count
