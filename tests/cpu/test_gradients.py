"""Gradients: those of a plain-hook run with autograd, for everything asked for, or an error."""

from __future__ import annotations

import pytest
import torch
from plain import Plain
from tests.tiny import tiny_gpt2, tiny_llama
from torch.nn.attention import SDPBackend, sdpa_kernel

import weft
from weft.errors import GradientError

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
RAGGED = [[3, 1, 4], [9, 2, 6, 5, 3], [8, 9, 7]]
FAMILIES = {"gpt2": lambda: tiny_gpt2(3, eos_token_id=None), "llama": lambda: tiny_llama(4, eos_token_id=None)}


@pytest.fixture(params=FAMILIES, scope="module")
def pair(request):
    """weft's model and plain hooks on the same weights."""
    module = FAMILIES[request.param]()
    return weft.load(module), Plain(module)


def random(*shape, seed=0, grad=True):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_(grad)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def kept(into):
    """A hook that keeps what passes, with its graph."""

    def keep(x):
        x = x if x.requires_grad else x.requires_grad_()
        into.append(x)
        return x

    return keep


def test_a_probe_on_a_site(pair):
    model, plain = pair
    probe = random(model.d_model, 3)
    with model.trace(IDS) as run:
        loss = (run.resid_post[0] @ probe).pow(2).mean()
        loss.backward()
    expected = torch.autograd.grad((plain.resid(0, IDS) @ probe).pow(2).mean(), probe)[0]
    close(probe.grad, expected)


def test_a_steering_vector_through_the_model(pair):
    model, plain = pair
    vector = random(model.d_model)
    with model.trace(IDS) as run:
        run.resid_post[0][:, -1] += vector
        run.logits[:, -1].logsumexp(-1).sum().backward()

    def steer(x):
        return torch.cat([x[:, :-1], x[:, -1:] + vector], 1)

    logits = plain.call(IDS, [plain.after(plain.layers[0], steer)]).logits
    close(vector.grad, torch.autograd.grad(logits[:, -1].logsumexp(-1).sum(), vector)[0])


def test_an_nn_module_of_ones_own(pair):
    model, plain = pair
    torch.manual_seed(0)
    adapter = torch.nn.Sequential(torch.nn.Linear(model.d_model, 5), torch.nn.GELU(), torch.nn.Linear(5, model.d_model))
    with model.trace(IDS) as run:
        run.resid_post[0] = run.resid_post[0] + adapter(run.resid_post[0])
        torch.nn.functional.cross_entropy(run.logits[:, -1], torch.tensor([1, 2])).backward()
    found = [parameter.grad.clone() for parameter in adapter.parameters()]
    logits = plain.call(IDS, [plain.after(plain.layers[0], lambda x: x + adapter(x))]).logits
    loss = torch.nn.functional.cross_entropy(logits[:, -1], torch.tensor([1, 2]))
    for gradient, expected in zip(found, torch.autograd.grad(loss, list(adapter.parameters())), strict=True):
        close(gradient, expected)


def test_a_tensor_that_is_no_leaf(pair):
    model, plain = pair
    leaf = random(model.d_model)
    with model.trace(IDS) as run:
        run.resid_post[0][:, 1] += leaf * 3
        run.logits[:, -1, 2].sum().backward()
    logits = plain.call(IDS, [plain.after(plain.layers[0], lambda x: _added(x, 1, leaf * 3))]).logits
    close(leaf.grad, torch.autograd.grad(logits[:, -1, 2].sum(), leaf)[0])


def test_a_non_leaf_made_before_the_block(pair):
    model, plain = pair
    leaf = random(model.d_model)
    vector = leaf.sin() * 3
    with model.trace(IDS) as run:
        run.resid_post[0][:, 1] += vector
        run.logits[:, -1, 2].sum().backward()
    logits = plain.call(IDS, [plain.after(plain.layers[0], lambda x: _added(x, 1, leaf.sin() * 3))]).logits
    close(leaf.grad, torch.autograd.grad(logits[:, -1, 2].sum(), leaf)[0])


def _added(x, position, vector):
    new = x.clone()
    new[:, position] = new[:, position] + vector
    return new


@pytest.mark.parametrize("broadcast", [lambda v: v, lambda v: v[None], lambda v: v[None, None, None]])
def test_a_leaf_assigned_by_index(pair, broadcast):
    """Assigning cuts leading dimensions of one off the value, outside the program unless that is watched for."""
    model, plain = pair
    vector = random(1, model.d_model)
    value = broadcast(vector).detach().requires_grad_()
    with model.trace(IDS) as run:
        run.resid_post[0][:, 1] = value
        run.logits[:, -1, 2].sum().backward()
    edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :1], vector.expand(2, 1, -1), x[:, 2:]], 1))
    expected = torch.autograd.grad(plain.call(IDS, [edit]).logits[:, -1, 2].sum(), vector)[0]
    close(value.grad, expected.reshape(value.shape))


def test_leaves_that_a_call_rearranges_first(pair):
    model, plain = pair
    a, b, c = random(3, model.d_model), random(3, seed=1), random(model.d_model, 3, seed=2)
    with model.trace(IDS) as run:
        x = run.resid_post[0]
        y = torch.nn.functional.linear(x, a, b) + torch.einsum("bpd,dk->bpk", x, c) + torch.matmul(a, x[0, 0])
        y.pow(2).sum().backward()
    x = plain.resid(0, IDS)
    y = torch.nn.functional.linear(x, a, b) + torch.einsum("bpd,dk->bpk", x, c) + torch.matmul(a, x[0, 0])
    for found, expected in zip([a, b, c], torch.autograd.grad(y.pow(2).sum(), [a, b, c]), strict=True):
        torch.testing.assert_close(found.grad, expected, rtol=1e-5, atol=1e-4)


def test_two_backwards_add_up_as_in_pytorch(pair):
    model, plain = pair
    probe = random(model.d_model)
    with model.trace(IDS) as run:
        (run.resid_post[0] @ probe).sum().backward()
        (run.resid_post[1] @ probe).pow(2).sum().backward()
    loss = (plain.resid(0, IDS) @ probe).sum() + (plain.resid(1, IDS) @ probe).pow(2).sum()
    torch.testing.assert_close(probe.grad, torch.autograd.grad(loss, probe)[0], rtol=1e-5, atol=1e-4)


def test_sites_several_at_once(pair):
    model, plain = pair
    with model.trace(IDS) as run:
        scalar = run.logits[:, -1, 3].sum()
        found = weft.grad(scalar, [run.resid_post[0], run.mlp_out[1], run.logits])
        for index, each in enumerate(found):
            each.save(str(index))
    sites = [[], [], []]
    edits = [plain.after(plain.layers[0], kept(sites[0])), plain.after(plain.mlp(1), kept(sites[1]))]
    logits = plain.call(IDS, [*edits, plain.after(plain.module.lm_head, kept(sites[2]))]).logits
    expected = torch.autograd.grad(logits[:, -1, 3].sum(), [each[0] for each in sites])
    for gradient, other in zip(found, expected, strict=True):
        close(gradient.value, other)


def test_every_heads_z(pair):
    model, plain = pair
    with model.trace(IDS) as run:
        found = [each.save() for each in weft.grad(run.logits[:, -1, 3].sum(), run.z)]
    zs: list[torch.Tensor] = []
    edits = [plain.before(plain.o(layer), kept(zs)) for layer in range(plain.n_layers)]
    expected = torch.autograd.grad(plain.call(IDS, edits).logits[:, -1, 3].sum(), zs)
    for gradient, other in zip(found, expected, strict=True):
        close(gradient.value.flatten(2), other)


def test_a_view_of_a_site(pair):
    model, plain = pair
    with model.trace(IDS) as run:
        found = weft.grad(run.logits[:, -1, 3].sum(), run.resid_post[0][:, 1:3].transpose(1, 2)).save()
    sites: list[torch.Tensor] = []
    logits = plain.call(IDS, [plain.after(plain.layers[0], kept(sites))]).logits
    expected = torch.autograd.grad(logits[:, -1, 3].sum(), sites)[0]
    close(found.value, expected[:, 1:3].transpose(1, 2))


def test_an_edited_site_at_its_edited_value(pair):
    model, plain = pair
    with model.trace(IDS) as run:
        run.resid_post[0][:, -1] *= 0.5
        found = weft.grad(run.logits[:, -1].pow(2).sum(), run.resid_post[0]).save()
    sites: list[torch.Tensor] = []

    def halve(x):
        new = x.detach().clone()
        new[:, -1] *= 0.5
        return kept(sites)(new)

    logits = plain.call(IDS, [plain.after(plain.layers[0], halve)]).logits
    close(found.value, torch.autograd.grad(logits[:, -1].pow(2).sum(), sites)[0])


def test_a_site_below_an_edit_and_the_edit_itself(pair):
    """The gradient at layer 0 goes through an edit of layer 1 that depends on layer 0."""
    model, plain = pair
    with model.trace(IDS) as run:
        run.mlp_out[1] = run.mlp_out[1] + run.resid_post[0].tanh()
        found = weft.grad(run.logits[:, -1, 0].sum(), run.resid_post[0]).save()
    sites: list[torch.Tensor] = []
    edits = [
        plain.after(plain.layers[0], kept(sites)),
        plain.after(plain.mlp(1), lambda x: x + sites[0].tanh()),
    ]
    close(found.value, torch.autograd.grad(plain.call(IDS, edits).logits[:, -1, 0].sum(), sites)[0])


def test_through_two_runs(pair):
    """What is copied from one run into another carries the gradient back into the first."""
    model, plain = pair
    other = IDS.flip(0)
    with model.session() as s:
        a, b = s.run(IDS), s.run(other)
        b.resid_post[0][:, 2] = a.resid_post[0][:, 2]
        found = weft.grad(b.logits[:, -1, 1].sum(), a.embed).save()
    embeds, sites = [], []
    plain.call(IDS, [plain.before(plain.layers[0], kept(embeds)), plain.after(plain.layers[0], kept(sites))])
    edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :2], sites[0][:, 2:3], x[:, 3:]], 1))
    close(found.value, torch.autograd.grad(plain.call(other, [edit]).logits[:, -1, 1].sum(), embeds)[0])


def test_of_second_order(pair):
    model, plain = pair
    with model.trace(IDS) as run:
        x = run.resid_post[0]
        first = weft.grad(run.logits[:, -1].softmax(-1)[:, 3].sum(), x)
        second = weft.grad(first.pow(2).sum(), x).save()
    sites: list[torch.Tensor] = []
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        logits = plain.call(IDS, [plain.after(plain.layers[0], kept(sites))]).logits
    gradient = torch.autograd.grad(logits[:, -1].softmax(-1)[:, 3].sum(), sites[0], create_graph=True)[0]
    close(second.value, torch.autograd.grad(gradient.pow(2).sum(), sites[0])[0])


def test_a_gradient_may_be_used_and_written(pair):
    """An edit along the gradient of an unedited run."""
    model, plain = pair
    with model.session() as s:
        base = s.run(IDS)
        gradient = weft.grad(base.logits[:, -1, 3].sum(), base.resid_post[0])
        moved = base.fork()
        moved.resid_post[0] += 0.1 * gradient
        moved.logits[:, -1].save("logits")
    sites: list[torch.Tensor] = []
    logits = plain.call(IDS, [plain.after(plain.layers[0], kept(sites))]).logits
    step = 0.1 * torch.autograd.grad(logits[:, -1, 3].sum(), sites)[0]
    close(s.results["logits"], plain.logits(IDS, [plain.after(plain.layers[0], lambda x: x + step)])[:, -1])


def test_ragged_prompts_and_a_leaf(pair):
    model, plain = pair
    vector = random(model.d_model)
    with model.trace(RAGGED) as run:
        run.resid_post[0][:, -1] += vector
        loss = run.logits[:, -1].pow(2).sum()
        loss.backward()
    total = 0.0
    for row in RAGGED:
        edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-1], x[:, -1:] + vector], 1))
        total = total + plain.call(torch.tensor([row]), [edit]).logits[:, -1].pow(2).sum()
    torch.testing.assert_close(vector.grad, torch.autograd.grad(total, vector)[0], rtol=1e-5, atol=1e-4)


def test_ragged_prompts_and_sites(pair):
    """Padding has gradient 0; every row's gradient is its own."""
    model, plain = pair
    with model.trace(RAGGED) as run:
        loss = run.logits[:, -1].pow(2).sum()
        below, edited = weft.grad(loss, [run.resid_post[0], run.mlp_out[1]])
        below.save("below"), edited.save("edited")
    width = max(map(len, RAGGED))
    for number, row in enumerate(RAGGED):
        sites: list[torch.Tensor] = []
        edits = [plain.after(plain.layers[0], kept(sites)), plain.after(plain.mlp(1), kept(sites))]
        out = plain.call(torch.tensor([row]), edits).logits[:, -1].pow(2).sum()
        for name, expected in zip(["below", "edited"], torch.autograd.grad(out, sites), strict=True):
            found = run.session.results[name][number]
            torch.testing.assert_close(found[width - len(row) :], expected[0], rtol=1e-5, atol=1e-4)
            assert not found[: width - len(row)].any()


def test_the_models_own_parts_pass_gradients(pair):
    model, plain = pair
    vector = random(2, model.d_model)
    with model.session() as s:
        model.unembed(model.final_norm(vector)).pow(2).sum().backward()
        del s
    expected = plain.module.lm_head(plain.norm(vector)).pow(2).sum()
    torch.testing.assert_close(vector.grad, torch.autograd.grad(expected, vector)[0], rtol=1e-5, atol=1e-4)


def test_the_users_tensor_asked_for_by_name(pair):
    model, plain = pair
    probe = random(model.d_model, grad=False)
    with model.trace(IDS) as run:
        found = weft.grad((run.resid_post[0] @ probe).sum(), probe).save()
    close(found.value, plain.resid(0, IDS).sum((0, 1)))
    assert probe.grad is None and not probe.requires_grad


def test_generation_passes_gradients_of_its_first_step(pair):
    model, plain = pair
    vector = random(model.d_model)
    with model.session() as s:
        g = s.generate(IDS, max_new_tokens=2)
        g.step(0).resid_post[0][:, -1] += vector
        g.step(0).logits[:, -1, 3].sum().backward()

    edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-1], x[:, -1:] + vector], 1))
    close(vector.grad, torch.autograd.grad(plain.call(IDS, [edit]).logits[:, -1, 3].sum(), vector)[0])


def test_generation_passes_gradients_through_its_cache(pair):
    """The prompt's edit reaches the second step by the keys and values alone (the token chosen is a constant)."""
    model, plain = pair
    vector = random(model.d_model)
    with model.session() as s:
        g = s.generate(IDS, max_new_tokens=2)
        g.step(0).resid_post[0][:, -1] += vector
        g.step(1).logits[:, -1, 3].sum().backward()
        g.tokens.save("tokens")
    whole = torch.cat([IDS, s.results["tokens"][:, :1]], 1)
    edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-2], x[:, -2:-1] + vector, x[:, -1:]], 1))
    close(vector.grad, torch.autograd.grad(plain.call(whole, [edit]).logits[:, -1, 3].sum(), vector)[0])


def test_generation_passes_gradients_of_every_step(pair):
    """A vector added at each step: a step's logits depend on it there and, through the cache, at all steps before."""
    model, plain = pair
    vector, steps = random(model.d_model), 3
    with model.session() as s:
        g = s.generate(IDS, max_new_tokens=steps)
        g.each.resid_post[0] += vector
        g.each.logits[..., 3].sum().backward()
    total, start = 0.0, IDS.shape[1] - 1
    for step in range(steps):
        ids = torch.cat([IDS, g.tokens.value[:, :step]], 1)
        change = (torch.arange(ids.shape[1]) >= start)[:, None] * vector
        logits = plain.call(ids, [plain.after(plain.layers[0], lambda x, c=change: x + c)]).logits
        total = total + logits[:, -1, 3].sum()
    close(vector.grad, torch.autograd.grad(total, vector)[0])


def test_a_leaf_in_a_standing_edit(pair):
    model, plain = pair
    vector = random(model.d_model)
    with model.edit() as steered:
        steered.resid_post[0][:, -1] += vector
    with steered.trace(IDS) as run:
        run.logits[:, -1].logsumexp(-1).sum().backward()
    edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-1], x[:, -1:] + vector], 1))
    close(vector.grad, torch.autograd.grad(plain.call(IDS, [edit]).logits[:, -1].logsumexp(-1).sum(), vector)[0])


# -- what is refused, at its line ---


def test_the_models_own_weights(pair):
    """The model uses them in every run: what a hook would see of them is not all."""
    model, plain = pair
    weight, probe = plain.module.lm_head.weight, random(model.d_model)
    for make in (lambda: weight, lambda: weight.T.contiguous().T):
        with pytest.raises(GradientError, match="the model's own weights") as error, model.trace(IDS) as run:
            (run.final_norm * probe @ make().T).sum().backward()
        assert line_of(error) == "(run.final_norm * probe @ make().T).sum().backward()"
    with model.trace(IDS) as run:
        (run.final_norm * probe @ weight.detach().T).sum().backward()
    assert probe.grad is not None


def test_a_target_that_is_used_by_another_way_too(pair):
    model, _ = pair
    probe = random(model.d_model)
    with pytest.raises(GradientError, match=r"also depends on a tensor") as error, model.trace(IDS) as run:
        weft.grad((run.embed @ probe + run.embed @ (probe * 2)).sum(), probe).save()
    assert "weft.grad" in line_of(error)


def line_of(error):
    return error.value.where.text


def test_a_vector_has_no_gradient(pair):
    model, _ = pair
    with pytest.raises(GradientError, match="of one number") as error, model.trace(IDS) as run:
        weft.grad(run.logits[:, -1], run.embed)
    assert line_of(error) == "weft.grad(run.logits[:, -1], run.embed)"


def test_nothing_that_requires_grad(pair):
    model, _ = pair
    with pytest.raises(GradientError, match="requires grad") as error, model.trace(IDS) as run:
        run.logits.sum().backward()
    assert line_of(error) == "run.logits.sum().backward()"


def test_a_site_that_the_scalar_does_not_depend_on(pair):
    model, _ = pair
    with pytest.raises(GradientError, match=r"does not depend on|depends on none") as error, model.trace(IDS) as run:
        weft.grad(run.resid_post[0].sum(), run.resid_post[1]).save()
    assert "weft.grad" in line_of(error)


def test_a_value_made_without_gradients(pair):
    model, _ = pair
    probe = random(model.d_model)
    with pytest.raises(GradientError, match=r"no_grad") as error, model.trace(IDS) as run:
        with torch.no_grad():
            h = run.resid_post[0] @ probe
        h.sum().backward()
    assert line_of(error) == "h.sum().backward()"


def test_a_detached_value_stops_the_gradient_and_no_more(pair):
    model, plain = pair
    probe = random(model.d_model)
    with model.trace(IDS) as run:
        h = run.resid_post[0] @ probe
        (h * h.detach()).sum().backward()
    h = plain.resid(0, IDS) @ probe
    close(probe.grad, torch.autograd.grad((h * h.detach()).sum(), probe)[0])


def test_integers_have_no_gradient(pair):
    model, _ = pair
    with pytest.raises(GradientError, match="floating"), model.trace(IDS) as run:
        weft.grad(run.logits.argmax(-1).sum(), run.embed)


def test_the_models_parameters_are_left_alone(pair):
    model, plain = pair
    probe = random(model.d_model)
    with model.trace(IDS) as run:
        (run.resid_post[1] @ probe).sum().backward()
    assert all(p.grad is None and p.requires_grad for p in plain.module.parameters())


@pytest.mark.parametrize("plan", ("auto", "reference"))
def test_gradients_at_a_site_that_was_edited_before_and_after_it(pair, plan):
    """What stands at the last position reaches no earlier one: that is no error, and 0; what comes of it is not 0."""
    model, plain = pair
    with model.session(plan=plan) as s:
        run, other = s.run(IDS), s.run(IDS)
        added = run.resid_post[0]
        added[:, -1] += 1.0
        other.resid_post[0][:, 1] += 1.0
        before, after = run.logits[:, 1].logsumexp(-1).sum(), run.logits[:, -1].logsumexp(-1).sum()
        gradients = weft.grad(before, [added[:, -1]])[0], weft.grad(after, [added[:, -1]])[0]
        gradients[0].save("none"), gradients[1].save("some"), other.logits[:, -1].save("other")
    assert s.results["none"].shape == s.results["some"].shape == (2, model.d_model)
    assert torch.equal(s.results["none"], torch.zeros(2, model.d_model))
    sites = []
    last = torch.zeros(IDS.shape[1], 1).index_fill(0, torch.tensor([IDS.shape[1] - 1]), 1.0)
    logits = plain.call(IDS, [plain.after(plain.layers[0], lambda x: kept(sites)((x + last).detach()))]).logits
    close(s.results["some"], torch.autograd.grad(logits[:, -1].logsumexp(-1).sum(), sites[0])[0][:, -1])


SITES = (
    "resid_pre",
    "resid_post",
    "attn_out",
    "mlp_out",
    "mlp_post",
    "z",
    "q",
    "k",
    "v",
    "q_rot",
    "k_rot",
    "scores",
    "pattern",
)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("layer", (0, 1))
def test_the_gradient_at_an_edited_site_is_whole(pair, site, layer):
    """Also where nothing was edited: before the edit it came out as 0."""
    model, _ = pair
    found = {}
    for plan in ("reference", "auto"):
        with model.session(plan=plan) as s:
            base = s.run(IDS)
            run = base.fork()
            value = getattr(run, site)[layer]
            if site in ("scores", "pattern"):
                value[:, :, 3] *= 0.9
            else:
                value[run.rows, run.at(3)] *= 0.5
            (gradient,) = weft.grad(run.logits[:, -1].logsumexp(-1).sum(), [value])
            gradient.save("gradient"), base.logits[:, -1].save("other")
        found[plan] = s.results["gradient"]
    close(found["auto"], found["reference"])
    before = (
        (slice(None), slice(0, 3)) if site not in ("scores", "pattern") else (slice(None), slice(None), slice(0, 3))
    )
    last = layer == model.n_layers - 1
    assert bool(found["auto"][before].abs().max() > 1e-5) is not (last and site not in ("resid_pre", "k", "v", "k_rot"))


@pytest.mark.parametrize("plan", ("auto", "reference"))
def test_a_gradient_that_an_edit_on_the_way_cuts_off_is_zero(pair, plan):
    model, _ = pair
    with model.session(plan=plan) as s:
        run, other = s.run(IDS), s.run(IDS)
        other.resid_post[0][:, 1] += 1.0
        other.logits[:, -1].save("other")
        early = run.resid_post[0]
        run.resid_post[1] = random(2, 5, model.d_model, grad=False)
        weft.grad(run.logits[:, -1].logsumexp(-1).sum(), [early])[0].save("none")
        other.final_norm[:, -1] = 1.0
        weft.grad(other.final_norm[:, -1].sum(), [other.resid_post[0]])[0].save("none of its own")
    assert torch.equal(s.results["none of its own"], torch.zeros(2, 5, model.d_model))
    assert torch.equal(s.results["none"], torch.zeros(2, 5, model.d_model))
