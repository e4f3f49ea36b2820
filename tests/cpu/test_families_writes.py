"""Every dense family: what is written has the effect that its equation gives, raw modules are what plain hooks see, and half
precision and the model's other attention give the same sites."""

import pytest
import torch
from family_equations import IDS, seen
from family_zoo import KINDS, ROWS, loaded

from weft.ir.nodes import Site
from weft.models import tapped

BATCH, POS = IDS.shape


@pytest.fixture(params=KINDS, scope="module")
def name(request):
    return request.param


def standard(model) -> list[Site]:
    return [spec.site for spec in model.card.sites if not spec.site.path]


def run(model, taps, ids=IDS, **more):
    with torch.no_grad(), tapped(model, taps):
        return model.forward({"tokens": ids, **more})


def sites(model, taps=None, wanted=None) -> dict[Site, torch.Tensor]:
    """The standard sites of one pass with these writes."""
    found: dict[Site, torch.Tensor] = {}
    taps = taps or {}

    def keep(site):
        def tap(value):
            new = taps[site](value) if site in taps else None
            found[site] = (value if new is None else new).clone()
            return new

        return tap

    run(model, {site: keep(site) for site in wanted or standard(model)})
    return found


def nudged(value):
    return value + torch.linspace(0.1, 0.5, value.numel(), dtype=torch.float64).view(value.shape).to(value.dtype)


def copied(output):
    """What a module gives, before others write over it: its first tensor."""
    while not isinstance(output, torch.Tensor):
        output = next(iter(output.values() if isinstance(output, dict) else output))
    return output.clone()


def same(left, right, within=2e-5):
    return torch.allclose(left, right, rtol=within, atol=within)


def test_every_standard_site_when_written_moves_the_logits(name):
    model = loaded(name)
    base = run(model, {})
    for site in standard(model):
        assert (run(model, {site: nudged}) - base).abs().max() > 1e-5, site


def test_a_site_written_with_its_own_value_changes_nothing(name):
    model = loaded(name)
    assert same(run(model, dict.fromkeys(standard(model), torch.clone)), run(model, {}), 1e-4)


def test_what_is_added_to_attn_out_and_mlp_out_is_added_to_the_stream(name):
    """Not more and not less, where there is a multiplier; and once, where the layer writes over the MLP's output."""
    model, at = loaded(name), 1
    base = sites(model)
    for written in ("attn_out", "mlp_out"):
        change = (
            torch.linspace(-1, 1, base[Site("embed")].numel())
            .view(base[Site("embed")].shape)
            .to(base[Site("embed")].dtype)
        )
        found = sites(model, {Site(written, at): lambda value, change=change: value + change})
        # What the MLP reads of attention moves it too, unless they are side by side.
        moved = found[Site("mlp_out", at)] - base[Site("mlp_out", at)] if written == "attn_out" else change
        moved = moved + change if written == "attn_out" else moved
        assert same(found[Site("resid_post", at)] - base[Site("resid_post", at)], moved), written


def test_what_is_added_to_a_head_is_added_to_what_attention_adds(name):
    model, kind = loaded(name), ROWS[name]
    base = sites(model)
    change = (
        torch.linspace(-1, 1, base[Site("embed")].numel()).view(base[Site("embed")].shape).to(base[Site("embed")].dtype)
    )

    def second_head(value):
        value = value.clone()
        value[:, :, 1] += change
        return value

    found = sites(model, {Site("head_out", 1): second_head})
    moved = found[Site("attn_out", 1)] - base[Site("attn_out", 1)]
    assert same(moved, change) is not bool(kind.post[0])
    assert moved.abs().max() > 1e-3


def test_one_head_of_q_k_or_v_written_leaves_the_others(name):
    """Where they come out of one projection, they are put together again as they lay."""
    model = loaded(name)
    wanted = [Site(each, 1) for each in ("q", "k", "v")]
    base = sites(model, wanted=wanted)
    for site in wanted:

        def last_head(value):
            value = value.clone()
            value[:, :, -1] += 1.0
            return value

        taps = {site: last_head}
        found = sites(model, taps, [*wanted, Site("scores", 1)])
        for other in wanted:
            expected = last_head(base[other]) if other == site else base[other]
            assert same(found[other], expected), (site, other)
    v, z = base[Site("v", 1)], Site("z", 1)
    group = model.sizes["n_heads"] // v.shape[2]
    last_v = {Site("v", 1): lambda value: torch.cat([value[:, :, :-1], value[:, :, -1:] + 1.0], 2)}
    moved = sites(model, last_v, [z, Site("v", 1)])[z] - sites(model, {}, [z])[z]
    assert bool((moved[:, :, -group:].abs().amax((0, 1, 3)) > 1e-3).all())
    assert bool((moved[:, :, :-group] == 0).all())  # keys' heads serve neighbours


def test_what_was_written_stays_what_it_was(name):
    """Falcon's layers add to what the MLP gave where it lies: not to the value of another run that was put there."""
    model = loaded(name)
    for chosen in (standard(model), [spec.site for spec in model.card.sites if spec.site.name == "module.output"]):
        values = sites(model, wanted=chosen)
        kept = {site: value.clone() for site, value in values.items()}
        run(model, {site: lambda _, value=value: value for site, value in values.items() if value.is_floating_point()})
        for site, value in values.items():
            assert torch.equal(value, kept[site]), site


def test_raw_modules_equal_plain_hooks(name):
    model, plain = loaded(name), {}

    def note(path):
        return lambda module, args, output: plain.setdefault(path, []).append(copied(output))

    handles = [each.register_forward_hook(note(path)) for path, each in model.module.named_modules() if path]
    with torch.no_grad():
        model.module(IDS, use_cache=False)
    for handle in handles:
        handle.remove()
    values = seen(name).values
    raw = [site for site in values if site.path and site.name == "module.output" and site.item in ("", "0")]
    assert len(raw) > 20
    for site in raw:
        output = plain[site.path][site.call]
        assert same(values[site].reshape(output.shape), output), site


@pytest.mark.parametrize(("batch", "pos"), [(1, 1), (4, 9)])
def test_shapes_and_order_are_the_cards_at_other_sizes(name, batch, pos):
    model, shapes = loaded(name), {}
    taps = {
        spec.site: lambda value, site=spec.site: shapes.update({site: tuple(value.shape)}) for spec in model.card.sites
    }
    run(model, taps, torch.arange(batch * pos).view(batch, pos) % 47)
    assert list(shapes.items()) == [(spec.site, spec.type(batch, pos).shape) for spec in model.card.sites]


def test_padded_rows_give_each_rows_own_numbers(name):
    model = loaded(name, torch.float32)  # in float64 eager masks are infinite to a softmax in float32
    ids = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [0, 0, 2, 7, 1, 8, 2]])
    alone = run(model, {}, ids[1:, 2:])
    for taps in ({}, {Site("pattern", 0): lambda value: None}):  # the model's own attention, and weft's
        assert same(run(model, taps, ids, start=torch.tensor([0, 2]))[1:, 2:], alone, 1e-4)


def test_steps_with_a_cache_give_the_sites_of_the_whole(name):
    """Two positions on from five: a pattern over seven keys, the later rows of the whole pass's."""
    from transformers import DynamicCache

    model = loaded(name)
    wanted = [
        Site(each, layer) for layer in range(3) for each in ("q_rot", "k_rot", "scores", "pattern", "z", "resid_post")
    ]
    whole, found, cache = sites(model, wanted=wanted), {}, DynamicCache()
    with torch.no_grad():
        model.forward({"tokens": IDS[:, :5]}, cache)
        with tapped(model, {site: lambda value, site=site: found.update({site: value.clone()}) for site in wanted}):
            model.forward({"tokens": IDS[:, 5:]}, cache)
    for site in wanted:
        rows = whole[site][:, :, 5:] if site.name in ("scores", "pattern") else whole[site][:, 5:]
        assert same(found[site].nan_to_num(neginf=0.0), rows.nan_to_num(neginf=0.0), 1e-4), site


def test_bfloat16_has_the_same_sites_and_close_numbers(name):
    half, exact = loaded(name, torch.bfloat16), sites(loaded(name))
    found = sites(half)
    assert found.keys() == exact.keys()
    for site, value in found.items():
        assert value.dtype == torch.bfloat16 or site.name in ("scores", "pattern", "logits", "q_rot", "k_rot"), site
        right = exact[site].nan_to_num(neginf=0.0)
        apart = (value.double().nan_to_num(neginf=0.0) - right).abs().mean() / right.abs().mean()
        assert apart < 0.08, (site, apart)
    added = found[Site("resid_post", 0)] + found[Site("attn_out", 1)] + found[Site("mlp_out", 1)]
    assert same(added.double(), found[Site("resid_post", 1)].double(), 0.1)


def test_sdpa_and_eager_give_the_same_sites(name):
    if ROWS[name].eager:
        return  # it has no other
    with torch.no_grad():
        own = [model.module(IDS).logits for model in (loaded(name), loaded(name, attention="eager"))]
    assert same(sites(loaded(name, attention="eager"))[Site("logits")], own[1])
    if name == "falcon, alibi":  # its eager attention adds the bias twice, so they are not the same function
        assert not same(*own)
        return
    left, right = sites(loaded(name)), sites(loaded(name, attention="eager"))
    assert left.keys() == right.keys()
    for site, value in left.items():
        assert same(value.nan_to_num(neginf=0.0), right[site].nan_to_num(neginf=0.0)), site
