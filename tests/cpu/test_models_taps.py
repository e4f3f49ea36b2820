"""Writing through taps: what is changed goes on, gradients flow, and the model is left as it was found."""

import threading

import pytest
import torch
from tests.tiny import tiny_gpt2, tiny_llama
from torch import nn

from weft.errors import ExecutionError, SiteError
from weft.ir.nodes import Site
from weft.models import load, tapped

IDS = torch.tensor([[3, 1, 4, 1, 5, 9]])
BUILD = {"gpt2": tiny_gpt2, "llama": tiny_llama}


@pytest.fixture(params=["gpt2", "llama"])
def loaded(request):
    return load(BUILD[request.param](seed=7))


def run(loaded, taps, ids=IDS):
    with tapped(loaded, taps):
        return loaded.forward({"tokens": ids})


def nudged(value):
    """A change of every entry that is not blocked, different for each."""
    steps = torch.linspace(0.1, 0.5, value.numel(), dtype=torch.float64).view(value.shape).to(value.dtype)
    return value + steps


def state_of(module):
    config = getattr(module, "config", None)
    hooks = [
        (path, len(each._forward_hooks), len(each._forward_pre_hooks), each.training)
        for path, each in module.named_modules()
    ]
    return hooks, config and config._attn_implementation, [each._version for each in module.parameters()]


def test_every_standard_site_when_written_moves_the_logits(loaded):
    with torch.no_grad():
        base = loaded.forward({"tokens": IDS})
        for spec in loaded.card.sites:
            if not spec.site.path:
                assert (run(loaded, {spec.site: nudged}) - base).abs().max() > 1e-4, spec.site


def test_every_float_output_of_a_module_when_written_moves_the_logits(loaded):
    with torch.no_grad():
        base = loaded.forward({"tokens": IDS})
        for spec in loaded.card.sites:
            if spec.site.path and spec.dtype == "float32" and spec.site.name == "module.output":
                assert (run(loaded, {spec.site: nudged}) - base).abs().max() > 1e-4, spec.site


def test_a_site_written_with_its_own_value_changes_nothing(loaded):
    with torch.no_grad():
        base = loaded.forward({"tokens": IDS})
        taps = {spec.site: lambda value: value.clone() for spec in loaded.card.sites if not spec.site.path}
        assert torch.allclose(run(loaded, taps), base, atol=1e-5)


def test_resid_mid_changes_the_stream_and_the_norms_input(loaded):
    seen = {}
    family = loaded.family
    norm = Site("module.input", None, f"{family.layers}.0.{family.norm2}")
    taps = {
        Site("resid_mid", 0): lambda value: value * 2,
        norm: lambda value: seen.update(norm=value.clone()),
        Site("mlp_out", 0): lambda value: seen.update(mlp=value.clone()),
        Site("resid_post", 0): lambda value: seen.update(post=value.clone()),
    }
    before = {}
    with torch.no_grad():
        run(loaded, {Site("resid_mid", 0): lambda value: before.update(mid=value.clone())})
        run(loaded, taps)
    assert torch.allclose(seen["norm"], before["mid"] * 2)
    assert torch.allclose(seen["post"], before["mid"] * 2 + seen["mlp"], atol=1e-6)


def test_writing_head_out_is_writing_its_share_of_attn_out(loaded):
    def without_head_1(value):
        value = value.clone()
        value[:, :, 1] = 0
        return value

    with torch.no_grad():
        left = run(loaded, {Site("head_out", 0): without_head_1})
        right = run(loaded, {Site("z", 0): without_head_1})
    assert torch.allclose(left, right, atol=1e-5)


def test_writing_a_stream_equals_a_plain_hook(loaded):
    vector = torch.arange(loaded.sizes["d_model"]) / 10.0
    layer = loaded.module.get_submodule(f"{loaded.family.layers}.1")
    with torch.no_grad():
        ours = run(loaded, {Site("resid_post", 1): lambda value: value + vector})
        handle = layer.register_forward_hook(lambda module, args, output: output + vector)
        theirs = loaded.module(IDS).logits
        handle.remove()
    assert torch.equal(ours, theirs)


def test_blocking_edges_in_scores_equals_zeroing_and_renormalising_the_pattern(loaded):
    def block(value):
        value = value.clone()
        value[:, :, 4, 2] = float("-inf")
        return value

    def renormalise(value):
        value = value.clone()
        value[:, :, 4, 2] = 0
        return value / value.sum(-1, keepdim=True)

    with torch.no_grad():
        assert torch.allclose(
            run(loaded, {Site("scores", 1): block}), run(loaded, {Site("pattern", 1): renormalise}), atol=1e-5
        )


def test_blocking_all_keys_of_a_row_is_an_error_that_names_it(loaded):
    def block(value):
        value = value.clone()
        value[0, 1, 3] = float("-inf")
        return value

    with pytest.raises(ExecutionError, match="row 0, head 1, query position 3"):
        run(loaded, {Site("scores", 0): block})


@pytest.mark.parametrize("name", ["embed", "q", "k_rot", "scores", "z", "head_out", "resid_mid", "mlp_post", "logits"])
def test_gradients_through_a_tap_are_the_finite_differences(name):
    loaded = load(tiny_gpt2(seed=9).double())
    site = next(spec.site for spec in loaded.card.sites if spec.site.name == name)

    def loss(amount):
        # tanh, so that the tap's own backward needs the value it was given
        logits = run(
            loaded, {site: lambda value: torch.where(value.isinf(), value, value + amount * torch.tanh(value))}
        )
        return logits[0, -1, 2] + 0.1 * (logits**2).sum()

    amount = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(amount), amount)
    with torch.no_grad():
        expected = (loss(amount + 1e-6) - loss(amount - 1e-6)) / 2e-6
    assert slope.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_of_a_written_leaf_equal_a_plain_hooks(loaded):
    vector = torch.zeros(loaded.sizes["d_model"], requires_grad=True)
    run(loaded, {Site("resid_mid", 1): lambda value: value + vector})[0, -1, 3].backward()
    ours, vector.grad = vector.grad.clone(), None
    attention = loaded.module.get_submodule(f"{loaded.family.layers}.1.{loaded.family.attn}")
    handle = attention.register_forward_hook(lambda module, args, out: (out[0] + vector, *out[1:]))
    loaded.module(IDS).logits[0, -1, 3].backward()
    handle.remove()
    assert torch.allclose(ours, vector.grad, atol=1e-5)


@pytest.mark.parametrize("name", ["q", "pattern", "resid_mid", "logits"])
def test_an_exception_in_a_tap_passes_through_and_leaves_the_model_as_found(loaded, name):
    before = state_of(loaded.module)
    site = next(spec.site for spec in loaded.card.sites if spec.site.name == name)

    def fail(value):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(loaded, {site: fail})
    assert state_of(loaded.module) == before
    with torch.no_grad():
        assert torch.equal(loaded.forward({"tokens": IDS}), loaded.module(IDS).logits)


def test_after_tapping_the_model_is_as_it_was(loaded):
    before = state_of(loaded.module)
    run(loaded, {spec.site: nudged for spec in loaded.card.sites if not spec.site.path})
    assert state_of(loaded.module) == before


def test_attention_is_replaced_only_if_somebody_looks_inside(loaded):
    during = []
    config = loaded.module.config
    for name in ("z", "q", "scores"):
        run(loaded, {Site(name, 0): lambda value: during.append(config._attn_implementation)})
    assert during == ["sdpa", "sdpa", "weft"]


def test_each_forward_calls_each_tap_once(loaded):
    calls = []
    with tapped(loaded, {Site("z", 0): lambda value: calls.append(value.shape[1])}):
        loaded.forward({"tokens": IDS})
        loaded.forward({"tokens": IDS[:, :2]})
    assert calls == [6, 2]


def test_a_tap_that_returns_another_shape_is_told(loaded):
    with pytest.raises(ExecutionError, match=r"z\[0\]: a tap returned"):
        run(loaded, {Site("z", 0): lambda value: value[:, :1]})


def test_an_unknown_site_is_refused_before_anything_runs(loaded):
    with pytest.raises(SiteError, match=r"z\[99\]"), tapped(loaded, {Site("z", 99): nudged}):
        raise AssertionError("entered")


def test_two_threads_do_not_see_one_anothers_taps(loaded):
    results, start = {}, threading.Barrier(2)

    def work(scale):
        start.wait()
        for _ in range(5):
            with torch.no_grad():
                results.setdefault(scale, []).append(run(loaded, {Site("scores", 1): lambda value: value * scale}))

    threads = [threading.Thread(target=work, args=(scale,)) for scale in (0.5, 2.0)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for scale, outputs in results.items():
        with torch.no_grad():
            alone = run(loaded, {Site("scores", 1): lambda value, scale=scale: value * scale})
        assert all(torch.equal(output, alone) for output in outputs)


def test_a_plain_forward_of_another_thread_is_not_tapped(loaded):
    seen, plain = [], []
    base = loaded.module(IDS).logits
    with tapped(loaded, {Site("resid_post", 0): lambda value: seen.append(1) or value * 0}):
        thread = threading.Thread(target=lambda: plain.append(loaded.module(IDS).logits))
        thread.start()
        thread.join()
    assert not seen and torch.equal(plain[0], base)


def test_keys_written_after_rotary_stay_in_the_cache(loaded):
    """A prompt's edited keys are what later steps attend to, as in one pass over the whole text."""
    from transformers import DynamicCache

    def turn(value):
        value = value.clone()
        value[:, 1:4] *= -1.5
        return value

    site = Site("k_rot", 1)
    with torch.no_grad():
        whole = run(loaded, {site: turn})
        cache = DynamicCache(config=loaded.module.config)
        with tapped(loaded, {site: turn}):
            loaded.forward({"tokens": IDS[:, :5]}, cache)
        step = loaded.forward({"tokens": IDS[:, 5:]}, cache)
    assert torch.allclose(step[:, -1], whole[:, -1], atol=1e-5)


def test_a_step_with_a_cache_has_its_own_positions_and_all_keys(loaded):
    from transformers import DynamicCache

    shapes = {}
    taps = {
        Site(name, 0): lambda value, name=name: shapes.update({name: tuple(value.shape)})
        for name in ("k_rot", "scores")
    }
    cache = DynamicCache(config=loaded.module.config)
    with torch.no_grad():
        loaded.forward({"tokens": IDS[:, :4]}, cache)
        with tapped(loaded, taps):
            loaded.forward({"tokens": IDS[:, 4:]}, cache)
    for name, shape in shapes.items():
        assert shape == loaded.card.by_site[Site(name, 0)][1].type(1, 2, 6).shape


def test_padded_rows_give_each_rows_own_numbers(loaded):
    """Rows padded on the left, attention looked into: the mask is not lost."""
    ids = torch.tensor([[3, 1, 4, 1, 5], [0, 0, 2, 7, 1]])
    with torch.no_grad():
        together = []
        with tapped(loaded, {Site("pattern", 0): lambda value: together.append(value)}):
            logits = loaded.forward({"tokens": ids, "start": torch.tensor([0, 2])})
        alone = loaded.forward({"tokens": ids[1:, 2:]})
    assert torch.allclose(logits[1:, 2:], alone, atol=1e-5)
    assert bool((together[0][1, :, 2:, :2] == 0).all())


class Branches(nn.Module):
    """A module called twice, one that is never called, one with keyword inputs and a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.relu = nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first = self.twice(x)
        return {"first": self.relu(first), "second": self.twice(first)}


def test_calls_of_a_module_are_counted():
    loaded, seen = load(Branches()), {}
    twice = [Site("module.output", None, "twice", call) for call in (0, 1)]
    x = torch.randn(2, 3)
    with tapped(loaded, {site: lambda value, site=site: seen.update({site.call: value}) for site in twice}):
        out = loaded.forward({"x": x})
    assert torch.equal(seen[1], out["second"])
    assert torch.equal(seen[0], loaded.module.twice(x))  # as it was, though the ReLU wrote over it


def test_a_module_that_is_never_called_is_an_error():
    loaded = load(Branches())
    site = Site("module.output", None, "never")
    with pytest.raises(ExecutionError, match=r"never reached module\(never\)\.output"), tapped(loaded, {site: nudged}):
        loaded.forward({"x": torch.randn(2, 3)})
