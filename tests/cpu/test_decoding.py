"""Generations decoded side by side: what each gives is what it gives alone, and what the reference gives."""

from __future__ import annotations

import pytest
import torch
from tests.generated.zoo import Which, model_of, module_of
from tests.tiny import tiny_llama

import weft
from weft.errors import ProgramError
from weft.execute import keys, turns

RAGGED = [[3, 4, 5, 6], [3, 4], [3, 4, 5, 6, 7, 8]]
GPT2, LLAMA = Which("gpt2", 3, "float64"), Which("llama", 2, "float64")
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


def vector(which, seed=0):
    numbers = torch.randn(model_of(which).d_model, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.to(getattr(torch, which.dtype))


def ran(which, write, plan="auto"):
    """Every value of a session, hidden ones (tokens and lengths) too, and the session."""
    with model_of(which).session(plan=plan) as s:
        write(s)
    return list(s.values.values()), s


def held(which, write):
    """The planned session, after its values were held against the reference's."""
    expected, _ = ran(which, write, "reference")
    found, session = ran(which, write)
    assert len(expected) == len(found) > 0
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        atol = TOLERANCE[which.dtype] * max(1.0, float(a.abs().max())) if a.is_floating_point() else 0
        torch.testing.assert_close(b, a, rtol=0, atol=atol)
    return session


def name_of(which):
    return "transformer.h.1.mlp" if which.family == "gpt2" else "model.layers.1.mlp"


def decoded(session):
    return [note for note in session.outcome.notes if note.startswith("decoded")]


@pytest.mark.parametrize("which", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_whole_layers_by_their_paths(which):
    layer = "transformer.h.1" if which.family == "gpt2" else "model.layers.1"

    def write(s):
        one, other = s.generate(RAGGED, max_new_tokens=4), s.generate(RAGGED, max_new_tokens=4)
        for step in (0, 2, 3):
            one.step(step).module(layer).input[:, -1:].save(f"in {step}")
        other.step(0).module(layer).input[:, -1] += vector(which)
        other.step(2).module(layer).input.save("after")

    assert decoded(held(which, write)) == ["decoded        2 generations side by side, 6 rows, 4 steps"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_ragged_generations_with_edits_and_reads_are_as_the_reference_has_them(family, dtype):
    which = Which(family, 3, dtype)

    def write(s):
        plain, steered = s.generate(RAGGED, max_new_tokens=5), s.generate(RAGGED, max_new_tokens=5)
        one = s.generate([[3, 4, 5, 6], [9, 9, 9]], max_new_tokens=6)
        steered.each.resid_post[1][:, -1] += vector(which)
        one.step(2).z[1][:, -1] *= 3.0
        one.step(0).resid_post[0][:, 1] += vector(which, 1)
        one.step(3).k[2][:, -1] = 0.5
        plain.each.logits.save("each")
        steered.each.mlp_out[2].save("after the edit")
        one.step(0).logits.save("all positions")
        one.step(0).q[1].save("padded")
        one.step(1).k_rot[1][:, -1] += 0.3
        one.step(3).q_rot[2].save("rotated")
        plain.step(1).module(name_of(which)).output[:, -1] *= 2.0
        one.step(4).final_norm.save("late")

    session = held(which, write)
    assert decoded(session) == ["decoded        3 generations side by side, 8 rows, 6 steps"]
    assert session.outcome.work["passes"] == 6


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_steered_tokens_are_those_of_a_plain_loop_without_a_cache(family):
    which = Which(family, 3, "float64")
    module, v = module_of(which), vector(which)
    layers = module.transformer.h if family == "gpt2" else module.model.layers
    with model_of(which).session() as s:
        g, h = s.generate([RAGGED[0]], max_new_tokens=5), s.generate([RAGGED[2]], max_new_tokens=4)
        g.each.resid_post[1][:, -1] += v
        h.step(1).resid_post[0][:, -1] += v
    for made, prompt, layer, steps in ((g, RAGGED[0], 1, range(5)), (h, RAGGED[2], 0, [1])):
        row = list(prompt)
        for _ in range(int(made.lengths.value[0])):
            places = [len(prompt) - 1 + step for step in steps if len(prompt) - 1 + step < len(row)]

            def add(_, __, out, places=places):
                x = out[0] if isinstance(out, tuple) else out
                x[:, places] += v

            hook = layers[layer].register_forward_hook(add)
            with torch.no_grad():
                row.append(int(module(torch.tensor([row])).logits[0, -1].argmax()))
            hook.remove()
        assert made.tokens.value[0, : len(row) - len(prompt)].tolist() == row[len(prompt) :]


def test_sampled_rows_draw_what_they_draw_alone():
    options = [{"seed": 1, "temperature": 0.8}, {"seed": 2, "temperature": 1.5, "top_p": 0.7}, {}]

    def write(s, chosen=options):
        for each in chosen:
            s.generate(RAGGED, max_new_tokens=8, **each)

    together, session = ran(GPT2, write)
    alone = [value for each in options for value in ran(GPT2, lambda s, each=each: write(s, [each]))[0]]
    assert len(decoded(session)) == 1
    assert all(torch.equal(a, b) for a, b in zip(together, alone, strict=True))
    held(GPT2, write)


def test_rows_that_have_ended_drop_out_and_read_as_nothing():
    with model_of(GPT2).session(plan="reference") as s:
        whole = s.generate(RAGGED, max_new_tokens=6, stop=[])
    stop = int(whole.tokens.value[1, 1])

    def write(s):
        g = s.generate(RAGGED, max_new_tokens=6, stop=[stop])
        g.each.resid_post[0].save("each")
        g.step(5).resid_post[0].save("last")

    session = held(GPT2, write)
    lengths = next(value for name, value in session.values.items() if name.startswith("_lengths"))
    assert 1 <= int(lengths[1]) <= 2
    assert not session.results["each"][int(lengths[1]) :, 1].any()
    prompts = sum(map(len, RAGGED))
    assert session.outcome.work["layer_tokens_done"] == 3 * (prompts + sum(int(n) - 1 for n in lengths))


def test_generations_of_different_lengths_end_by_themselves():
    def write(s):
        for count in (1, 4, 2):
            g = s.generate(RAGGED, max_new_tokens=count)
            g.each.logits.save(f"{count}")

    session = held(LLAMA, write)
    assert [tuple(session.results[str(n)].shape[:2]) for n in (1, 4, 2)] == [(1, 3), (4, 3), (2, 3)]


def test_equal_prompts_are_computed_once_up_to_their_first_edit():
    steps, prompt = 3, [3, 4, 5, 6, 7]

    def write(s):
        s.generate([prompt], max_new_tokens=steps, stop=[])
        at_the_end, inside = (s.generate([prompt], max_new_tokens=steps) for _ in range(2))
        at_the_end.each.resid_post[1] += vector(LLAMA)
        inside.step(0).resid_post[0][:, 2:4] *= 2.0

    session = held(LLAMA, write)
    lengths = [int(value[0]) for name, value in session.values.items() if name.startswith("_lengths")]
    own = len(prompt) + 1 + (len(prompt) - 2)  # once; the last token again; all from position 2 on again
    assert session.outcome.work["layer_tokens_done"] == 2 * (own + sum(lengths) - 3)
    assert session.outcome.work["layer_tokens_asked"] == 2 * (3 * len(prompt) + sum(lengths) - 3)


def test_a_value_of_an_earlier_step_goes_into_another_generation():
    def write(s):
        a, b = s.generate(RAGGED, max_new_tokens=4), s.generate(RAGGED[::-1], max_new_tokens=4)
        a.step(2).resid_post[1] = b.step(1).resid_post[1]
        b.step(3).resid_post[0] = a.step(3).resid_post[0]
        a.step(3).logits.save("a")
        b.step(3).logits.save("b")

    assert len(decoded(held(LLAMA, write))) == 1


def test_a_generation_comes_after_the_one_whose_later_step_it_takes():
    def write(s):
        a, b = s.generate(RAGGED, max_new_tokens=4), s.generate(RAGGED, max_new_tokens=4)
        r = s.run(RAGGED)
        a.step(0).resid_post[1][:, -1] = b.step(3).resid_post[1][:, -1]
        r.resid_post[0][:, -1] = a.step(2).resid_post[0][:, -1]
        r.logits[:, -1].save("r")

    session = held(LLAMA, write)
    assert [note.split()[1] for note in decoded(session)] == ["1", "1"]


def test_runs_that_wait_for_each_other_are_left_to_the_reference_and_named():
    def write(s):
        g, r = s.generate(RAGGED, max_new_tokens=4), s.run(RAGGED)
        r.resid_post[0][:, -1] = g.step(0).resid_post[0][:, -1]
        g.step(2).resid_post[1][:, -1] = r.resid_post[1][:, -1]
        s.generate(RAGGED, max_new_tokens=2)
        g.step(3).logits.save("g")

    session = held(LLAMA, write)
    assert decoded(session) == ["decoded        1 generation side by side, 3 rows, 2 steps"]
    assert "waits for a run that waits for it" in session.explain()


def test_a_site_that_packed_decoding_lacks_is_named():
    def write(s):
        g, _ = s.generate(RAGGED, max_new_tokens=2), s.generate(RAGGED, max_new_tokens=2)
        g.step(1).scores[1].save("scores")

    session = held(LLAMA, write)
    assert "as reference   1 run: a generation that reads or writes scores[1]" in session.explain()
    assert decoded(session) == ["decoded        1 generation side by side, 3 rows, 2 steps"]


def test_logits_written_choose_the_token():
    def write(s):
        g, h = s.generate(RAGGED, max_new_tokens=3), s.generate(RAGGED, max_new_tokens=3)
        g.step(1).logits[:, -1, 11] += 100.0
        h.step(0).logits[1, -1, 12] += 100.0
        h.step(0).final_norm[2, -1] *= -1.0

    session = held(LLAMA, write)
    g, h = (value for name, value in session.values.items() if name.startswith("_tokens"))
    going = g[:, 0] != 1  # not ended with the model's end of text
    assert int(going.sum()) == 2 and g[going, 1].tolist() == [11, 11] and h[1, 0] == 12


def test_generations_that_do_not_fit_side_by_side_come_one_after_another(monkeypatch):
    monkeypatch.setattr(turns, "MOST_BYTES", 2 * 3 * 12 * 8 * 3 * (6 + 4) * 2)  # two of them: 2 L·K·D bytes · 3 × 10

    def write(s):
        for _ in range(5):
            s.generate(RAGGED, max_new_tokens=4)

    assert [note.split()[1] for note in decoded(held(GPT2, write))] == ["2", "2", "1"]


def test_edits_at_steps_that_no_row_reaches_are_without_effect():
    with model_of(GPT2).session(plan="reference") as s:
        first = s.generate([RAGGED[0]], max_new_tokens=1)
    stop = int(first.tokens.value[0, 0])

    def write(s):
        g = s.generate([RAGGED[0]], max_new_tokens=4, stop=[stop])
        g.step(2).resid_post[0] *= 2.0
        g.step(0).resid_post[0][:, 0] *= 1.0

    assert held(GPT2, write).outcome.edits == (2, 1, 1)


def test_a_model_whose_generations_go_wrong_side_by_side_is_left_to_the_reference(monkeypatch):
    """Here new keys are kept one column too early, so that each token forgets the one before it."""
    attend = keys.Keys.attend

    def forgetful(self, layer, q, k, v, how):
        found = attend(self, layer, q, k, v, how)
        self.keys[layer][: self.rows, :, self.filled - 2] = self.keys[layer][: self.rows, :, self.filled - 1]
        return found

    monkeypatch.setattr(keys.Keys, "attend", forgetful)
    model = weft.load(tiny_llama(3, num_hidden_layers=2))
    with model.session() as s:
        s.generate(RAGGED, max_new_tokens=3)
    assert decoded(s) == []
    assert "on a tiny copy of it, generations side by side have other logits" in s.explain()


def test_a_generation_that_a_gradient_goes_through_is_left_to_the_reference():
    with model_of(LLAMA).session() as s:
        g, _ = s.generate(RAGGED, max_new_tokens=2), s.generate(RAGGED, max_new_tokens=2)
        weft.grad(g.step(1).logits[:, -1, 3].sum(), [g.step(0).resid_post[0]])[0].save("gradient")
    assert s.results["gradient"].any()
    assert "1 run: a generation that a gradient goes through" in s.explain()
    assert decoded(s) == ["decoded        1 generation side by side, 3 rows, 2 steps"]


@pytest.mark.parametrize("standing", [False, True])
def test_a_site_written_at_each_step_and_at_one_is_refused_at_its_line(standing):
    model = model_of(GPT2)
    with model.edit() as edited:
        edited.mlp_out[0] *= 0.5
    with (
        pytest.raises(ProgramError, match="both at each step and at one") as caught,
        (edited if standing else model).session() as s,
    ):
        g = s.generate(RAGGED, max_new_tokens=2)
        if not standing:
            g.step(1).mlp_out[0][:, -1] += vector(GPT2)
        g.each.mlp_out[0][:, -1] += vector(GPT2)  # refused
        raise AssertionError("not refused at its line")
    assert "# refused" in str(caught.value)
