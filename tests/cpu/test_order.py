"""Between sites the model's order decides, within one site the program's; what would need its own effect is refused."""

from __future__ import annotations

import random

import pytest
import torch
from plain import Plain
from tests.tiny import tiny_gpt2, tiny_llama

import weft
from weft.errors import CausalityError

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
OTHER = IDS.flip(1)


@pytest.fixture(params=["gpt2", "llama"], scope="module")
def pair(request):
    module = {"gpt2": tiny_gpt2, "llama": tiny_llama}[request.param](5)
    return weft.load(module), Plain(module)


def steps(run, other, vector):
    """An experiment in pieces: (site, what is done). Pieces of one site keep their order, all else is free."""

    def add(x):
        x += vector

    def halve(x):
        x[:, -1] *= 0.5

    def swap(x, value):
        x[:, 1] = value

    return [
        ("resid0", lambda: run.resid_post[0].save("resid 0 before")),
        ("resid0", lambda: add(run.resid_post[0])),
        ("resid0", lambda: halve(run.resid_post[0])),
        ("resid0", lambda: run.resid_post[0].save("resid 0 after")),
        ("mlp1", lambda: halve(run.mlp_out[1])),
        ("mlp1", lambda: run.mlp_out[1].save("mlp 1")),
        ("z1", lambda: swap(run.z[1], other.z[1][:, 2])),
        ("z0", lambda: run.z[0].save("z 0")),
        ("z0", lambda: swap(run.z[0], 0.0)),
        ("embed", lambda: add(run.embed)),
        ("logits", lambda: run.logits[:, -1].save("logits")),
        ("norm", lambda: (run.final_norm * 2).save("norm")),
    ]


def ordered(model, vector, seed):
    shuffle = random.Random(seed)
    with model.session() as s:
        run, other = s.run(IDS), s.run(OTHER)
        by_site: dict[str, list] = {}
        for site, step in steps(run, other, vector):
            by_site.setdefault(site, []).append(step)
        while by_site:
            site = shuffle.choice(sorted(by_site))
            by_site[site].pop(0)()
            if not by_site[site]:
                del by_site[site]
    return s.results


def test_200_orders_give_one_result(pair):
    model, _ = pair
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    first = ordered(model, vector, 0)
    for seed in range(1, 200):
        for name, value in ordered(model, vector, seed).items():
            torch.testing.assert_close(value, first[name], rtol=1e-6, atol=1e-6)


def test_and_it_is_the_result_of_hooks(pair):
    model, plain = pair
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))

    def resid(x):
        x = x + vector
        return torch.cat([x[:, :-1], x[:, -1:] * 0.5], 1)

    def zeroed(x):
        return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:2]), x[:, 2:]], 1)

    z = plain.z(1, OTHER)
    edits = [
        plain.before(plain.layers[0], lambda x: x + vector),
        plain.before(plain.o(0), zeroed),
        plain.after(plain.layers[0], resid),
        plain.before(plain.o(1), lambda x: torch.cat([x[:, :1], z[:, 2:3], x[:, 2:]], 1)),
        plain.after(plain.mlp(1), lambda x: torch.cat([x[:, :-1], x[:, -1:] * 0.5], 1)),
    ]
    found = ordered(model, vector, 7)
    torch.testing.assert_close(found["logits"], plain.logits(IDS, edits)[:, -1], rtol=1e-5, atol=1e-5)


def test_what_was_read_is_kept_though_the_site_is_written_after(pair):
    """`late` comes from a later layer, so the sum is computed long after the write it must not see."""
    model, plain = pair
    with model.trace(IDS) as run:
        h, late = run.resid_post[0], run.resid_post[1]
        out = (h * late).sum().save("out")
        h[:, -1] = 0
    zeroed = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-1], torch.zeros_like(x[:, -1:])], 1))
    expected = (plain.resid(0, IDS) * plain.resid(1, IDS, [zeroed])).sum()
    torch.testing.assert_close(out.value, expected, rtol=1e-5, atol=1e-5)


def test_an_edit_from_later_to_earlier_is_refused_at_its_line(pair):
    model, _ = pair
    with pytest.raises(CausalityError, match=r"write to resid_post\[0\] depends on resid_post\[1\]") as error:  # noqa: SIM117
        with model.trace(IDS) as run:
            late = run.resid_post[1] * 2
            run.resid_post[0][:, 0] = late[:, 0]
    assert error.value.where.text == "run.resid_post[0][:, 0] = late[:, 0]"


def test_the_same_from_another_run_is_not(pair):
    model, plain = pair
    with model.session() as s:
        base = s.run(IDS)
        edited = base.fork()
        edited.resid_post[0][:, 0] = base.resid_post[1][:, 0]
        edited.logits[:, -1].save("logits")
    late = plain.resid(1, IDS)
    edit = plain.after(plain.layers[0], lambda x: torch.cat([late[:, :1], x[:, 1:]], 1))
    torch.testing.assert_close(s.results["logits"], plain.logits(IDS, [edit])[:, -1], rtol=1e-5, atol=1e-5)


def test_two_runs_that_swap(pair):
    """Each takes the other's: neither can be run to its end before the other has begun."""
    model, plain = pair
    with model.session() as s:
        a, b = s.run(IDS), s.run(OTHER)
        from_a, from_b = a.resid_post[0].clone(), b.resid_post[0].clone()
        a.resid_post[0] = from_b
        b.resid_post[0] = from_a
        a.logits[:, -1].save("a"), b.logits[:, -1].save("b")
    for name, own, other in [("a", IDS, OTHER), ("b", OTHER, IDS)]:
        value = plain.resid(0, other)
        expected = plain.logits(own, [plain.after(plain.layers[0], lambda x, v=value: v)])[:, -1]
        torch.testing.assert_close(s.results[name], expected, rtol=1e-5, atol=1e-5)


def test_two_runs_that_swap_at_different_layers(pair):
    model, plain = pair
    with model.session() as s:
        a, b = s.run(IDS), s.run(OTHER)
        b.mlp_out[1][:, -1] = a.resid_post[0][:, -1]
        a.mlp_out[1][:, -1] = b.resid_post[0][:, -1]
        a.logits[:, -1].save("a"), b.logits[:, -1].save("b")
    for name, own, other in [("a", IDS, OTHER), ("b", OTHER, IDS)]:
        value = plain.resid(0, other)[:, -1:]
        edit = plain.after(plain.mlp(1), lambda x, v=value: torch.cat([x[:, :-1], v], 1))
        torch.testing.assert_close(s.results[name], plain.logits(own, [edit])[:, -1], rtol=1e-5, atol=1e-5)


def test_a_circle_through_two_runs_is_refused_at_its_line(pair):
    model, _ = pair
    with pytest.raises(CausalityError) as error, model.session() as s:
        a, b = s.run(IDS), s.run(OTHER)
        b.resid_post[0] = a.resid_post[1]
        a.resid_post[0] = b.resid_post[1]
    assert error.value.where.text == "a.resid_post[0] = b.resid_post[1]"
