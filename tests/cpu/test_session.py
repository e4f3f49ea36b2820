"""Sessions as a user meets them: edits that stand, looking on the way, places in the text, names, and every refusal."""

# ruff: noqa: SIM117, TID251 (a block within a block is what is tested; results must survive being pickled by others)

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from plain import Plain
from tests.tiny import tiny_gpt2

import weft
from weft.errors import (
    CausalityError,
    NotSavedError,
    NoValueError,
    OutsideWriteError,
    PositionError,
    ProgramError,
    SessionError,
    ShapeError,
    SiteError,
    TokenError,
    WeftError,
)
from weft.planted.words import VOCABULARY, word_tokenizer

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
TEXTS = ["The red cat saw a dog", "A dog saw the old cat and the moon"]


@pytest.fixture(scope="module")
def module():
    return tiny_gpt2(6, vocab_size=len(VOCABULARY), eos_token_id=None)


@pytest.fixture(scope="module")
def model(module):
    return weft.load(module, tokenizer=word_tokenizer())


@pytest.fixture(scope="module")
def plain(module):
    return Plain(module, word_tokenizer())


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class refused:
    """As pytest.raises, and the error must point at the line of this file that holds `line`."""

    def __init__(self, cls, match, line):
        self.raises, self.line = pytest.raises(cls, match=match), line

    def __enter__(self):
        self.info = self.raises.__enter__()
        return self.info

    def __exit__(self, *error):
        done = self.raises.__exit__(*error)
        where = self.info.value.where
        assert where is not None and where.file == __file__ and self.line in where.text, where
        return done


# -- values after the block ---


def test_a_saved_value_is_an_ordinary_one(model):
    with model.trace(IDS) as run:
        x = run.resid_post[0][:, -1].save("x")
        one = run.logits[0, 0, 0].save()
    expected = run.session.results["x"]
    assert type(x.value) is torch.Tensor and torch.equal(x.value, expected)
    assert np.array_equal(np.asarray(x), expected.numpy()) and np.array_equal(x.numpy(), expected.numpy())
    assert float(one) == one.item() == one.value.item()
    assert f"{one:.3f}" == f"{float(one):.3f}"
    assert torch.equal(pickle.loads(pickle.dumps(x)), expected) and torch.equal(copy.deepcopy(x), expected)
    assert torch.equal(x + 1, expected + 1) and torch.equal(torch.stack([x, x])[0], expected)
    assert x.tolist() == expected.tolist() and bool((x == expected).all())


def test_saves_without_names_are_numbered(model):
    with model.trace(IDS) as run:
        run.embed.save(), run.logits.save("logits"), run.final_norm.save()
    assert list(run.session.results) == ["0", "logits", "1"]


def test_a_name_is_used_once(model):
    with (
        refused(ProgramError, r"'x' is saved already; choose another", 'run.logits.save("x")'),
        model.trace(IDS) as run,
    ):
        run.embed.save("x")
        run.logits.save("x")


@pytest.mark.parametrize("name", ["", "a/b", "_hidden", "line\nbreak", 3])
def test_names_that_cannot_be(model, name):
    with refused(ProgramError, "cannot name a result", "run.embed.save(name)"), model.trace(IDS) as run:
        run.embed.save(name)


def test_save_takes_the_version_at_its_line(model):
    with model.trace(IDS) as run:
        h = run.resid_post[0]
        before = h.save()
        h[:, -1] = 0
        after = h.save()
    assert before.value[:, -1].any() and not after.value[:, -1].any()


def test_and_so_it_does_of_a_tensor_made_in_the_block(model):
    with model.trace(IDS) as run:
        grid = torch.zeros(2)
        empty = grid.save()
        grid[0] = 1
        filled = grid.save()
        grid[1] = run.embed[0, 0, 0]
        grid.save("grid")
        run.embed.save("embed")
    assert empty.tolist() == [0, 0] and filled.tolist() == [1, 0]
    assert grid.tolist() == empty.tolist(), "a name stays with the value that got it"
    assert run.session.results["grid"][1] == run.session.results["embed"][0, 0, 0]


def test_what_was_not_saved_is_gone(model):
    with model.trace(IDS) as run:
        lost = run.embed * 2
        run.logits.save()
    with refused(NotSavedError, r"write .save\(\) on it inside the block", "lost.sum()"):
        lost.sum()


def test_looking_too_early(model):
    with refused(
        NoValueError, r"the model runs when the block ends.*torch\.where.*now\(\)", "if run.embed.mean() > 0:"
    ):
        with model.trace(IDS) as run:
            if run.embed.mean() > 0:
                pass


def test_writing_into_a_tensor_from_outside(model):
    outside = torch.zeros(2)
    with (
        refused(OutsideWriteError, r"torch\.stack the values", "outside[0] = run.embed[0, 0, 0]"),
        model.trace(IDS) as run,
    ):
        outside[0] = run.embed[0, 0, 0]


# -- sessions ---


def test_a_value_of_a_failed_session(model):
    with pytest.raises(ZeroDivisionError), model.trace(IDS) as run:
        x = run.embed.save()
        _ = 1 / 0
    with refused(SessionError, "belongs to a session that failed", "x.value"):
        x.value  # noqa: B018


def test_two_sessions_do_not_mix(model):
    with (
        refused(SessionError, "values of two sessions", "b.embed + a.embed"),
        model.session() as s,
        model.session() as t,
    ):
        a, b = s.run(IDS), t.run(IDS)
        _ = b.embed + a.embed


def test_a_session_is_used_once(model):
    s = model.session()
    with s:
        s.run(IDS).logits.save()
    with refused(SessionError, "used once", "with s:"), s:
        pass


def test_nothing_after_the_end(model):
    with model.session() as s:
        run = s.run(IDS)
        run.logits.save()
    with refused(SessionError, "the block has ended", "run.embed.save()"):
        run.embed.save()
    with refused(SessionError, "the block has ended", "s.run(IDS)"):
        s.run(IDS)


def test_nothing_before_the_beginning(model):
    with refused(SessionError, "open the session first", "model.session().run(IDS)"):
        model.session().run(IDS)


def test_an_earlier_sessions_result_is_a_constant(model, plain):
    with model.trace(IDS) as first:
        mean = first.resid_post[0].mean((0, 1)).save()
    with model.trace(IDS) as run:
        run.resid_post[0][:, -1] = mean
        out = run.logits[:, -1].save()
    value = plain.resid(0, IDS).mean((0, 1))
    edit = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-1], value.expand(2, 1, -1)], 1))
    close(out.value, plain.logits(IDS, [edit])[:, -1])


# -- forks ---


def test_a_fork_has_the_prompts_and_none_of_the_edits(model):
    with model.session() as s:
        run = s.run(TEXTS)
        run.resid_post[0][:, -1] = 0
        fork = run.fork()
        fork.logits.save("fork"), run.logits.save("run"), s.run(TEXTS).logits.save("again")
    assert torch.equal(s.results["fork"], s.results["again"])
    assert not torch.equal(s.results["fork"], s.results["run"])


def test_a_generation_is_forked_and_a_step_is_not(model):
    with model.session() as s:
        g = s.generate(IDS, max_new_tokens=3)
        g.step(0).resid_post[0][:, -1] *= 3
        h = g.fork()
        with refused(ProgramError, "fork the generation", "g.step(1).fork()"):
            g.step(1).fork()
    with model.session() as s:
        other = s.generate(IDS, max_new_tokens=3)
    assert h.tokens.tolist() == other.tokens.tolist()


# -- standing edits ---


def test_a_standing_edit_is_made_in_every_run(model):
    vector = torch.randn(12, generator=torch.Generator().manual_seed(0))
    with model.edit() as steered:
        steered.resid_post[0][:, -1] += vector
        steered.mlp_out[1] = steered.mlp_out[1] * 0.5
    with steered.session() as s:
        run = s.run(IDS)
        longer = s.run(TEXTS)
        run.logits.save("run"), longer.logits[:, -1].save("longer")
        g = s.generate(IDS, max_new_tokens=3)
    with model.session() as t:
        by_hand = [t.run(IDS), t.run(TEXTS)]
        for each in by_hand:
            each.resid_post[0][:, -1] += vector
            each.mlp_out[1] = each.mlp_out[1] * 0.5
        by_hand[0].logits.save("run"), by_hand[1].logits[:, -1].save("longer")
        h = t.generate(IDS, max_new_tokens=3)
        for i in range(3):
            h.step(i).resid_post[0][:, -1] += vector
            h.step(i).mlp_out[1] = h.step(i).mlp_out[1] * 0.5
    for name in ("run", "longer"):
        close(s.results[name], t.results[name])
    assert g.tokens.tolist() == h.tokens.tolist()
    with model.trace(IDS) as plain_run:
        plain_run.logits.save("run")
    assert not torch.allclose(plain_run.session.results["run"], s.results["run"])


def test_standing_edits_on_top_of_one_another(model):
    with model.edit() as one:
        one.embed[:, 0] = 0
    with one.edit() as two:
        two.resid_post[0][:, -1] *= 2
    with two.trace(IDS) as run:
        out = run.logits.save()
    with model.trace(IDS) as run:
        run.embed[:, 0] = 0
        run.resid_post[0][:, -1] *= 2
        expected = run.logits.save()
    close(out.value, expected.value)


def test_a_fork_of_an_edited_models_run_has_the_edit(model):
    with model.edit() as steered:
        steered.resid_post[0] += 1.0
    with steered.session() as s:
        run = s.run(IDS)
        run.logits.save("run"), run.fork().logits.save("fork")
    torch.testing.assert_close(s.results["run"], s.results["fork"], atol=1e-6, rtol=1e-6)


def test_a_standing_edit_saves_nothing(model):
    with refused(ProgramError, "saves nothing", "steered.embed.save()"), model.edit() as steered:
        steered.embed.save()
        steered.embed[:, 0] = 0


def test_a_standing_edit_must_edit(model):
    with pytest.raises(ProgramError, match="writes to no site"), model.edit() as steered:
        steered.embed * 2


# -- looking on the way ---


def test_now_gives_the_numbers(model, plain):
    with model.trace(IDS) as run:
        run.resid_post[0][:, -1] *= 2
        norm = run.resid_post[0].norm(dim=-1).now()
        assert type(norm) is torch.Tensor
        run.mlp_out[1][:, int(norm[0].argmax())] = 0
        out = run.logits[:, -1].save()
    double = plain.after(plain.layers[0], lambda x: torch.cat([x[:, :-1], x[:, -1:] * 2], 1))
    close(norm, plain.resid(0, IDS, [double]).norm(dim=-1))
    at = int(norm[0].argmax())

    def zero(x):
        x = x.clone()
        x[:, at] = 0
        return x

    close(out.value, plain.logits(IDS, [double, plain.after(plain.mlp(1), zero)])[:, -1])


def test_a_write_that_would_have_changed_what_was_shown(model):
    with refused(CausalityError, r"\.now\(\) has already shown[\s\S]*fork\(\)", "run.resid_post[0][:, 0] = 0"):
        with model.trace(IDS) as run:
            run.resid_post[1].norm().now()
            run.resid_post[0][:, 0] = 0


def test_a_later_write_and_another_run_are_free(model):
    with model.trace(IDS) as run:
        run.resid_post[0].norm().now()
        run.mlp_out[1][:, 0] = 0
        run.fork().embed[:, 0] = 0
        run.logits.save()


# -- places in the text ---


def test_at_and_find(model):
    with model.session() as s:
        run = s.run(TEXTS)
        run.logits.save()
    longest = run.pos - 1
    assert run.at(-1).tolist() == [longest, longest] and run.at(0).tolist() == run.start.tolist()
    assert run.at(" dog").tolist() == [longest, int(run.start[1]) + 2]
    assert run.at([" cat", " moon"]).tolist() == [int(run.start[0]) + 3, longest]
    assert run.find([" saw a", " saw the"]).tolist() == [[longest - 2, longest - 1], [3, 4]]
    assert run.at(" saw", end="first").tolist() == run.find(" saw")[:, 0].tolist()
    for row, text in enumerate(TEXTS):
        ids = run.tokens[row, int(run.start[row]) :].tolist()
        assert model.tokens.decode(ids).endswith(text)


def test_at_reads_and_writes_a_different_place_in_each_row(model, plain):
    with model.trace(TEXTS) as run:
        run.resid_post[0][run.rows, run.at(" cat")] = 0
        out = run.logits[:, -1].save()
    for row, text in enumerate(TEXTS):
        place = plain.place(text, " cat")

        def zero(x, place=place):
            x = x.clone()
            x[:, place] = 0
            return x

        close(out.value[row], plain.logits(text, [plain.after(plain.layers[0], zero)])[0, -1])


def test_a_text_that_is_missing_in_a_row(model):
    with refused(PositionError, r"row 0: ' moon' is not in 'The red cat saw a dog'", 'run.at(" moon")'):
        with model.trace(TEXTS) as run:
            run.at(" moon")


def test_a_text_that_stands_twice(model):
    with refused(PositionError, r"row 1: ' the' is 2 times.*occurrence", 'run.find([" cat", " the"])'):
        with model.trace(TEXTS) as run:
            run.find([" cat", " the"])


def test_a_text_for_each_row(model):
    with refused(PositionError, r"1 texts for 2 rows", 'run.at([" cat"])'), model.trace(TEXTS) as run:
        run.at([" cat"])


def test_a_position_that_a_row_does_not_have(model):
    with refused(PositionError, r"at\(8\): row 0 has 7 tokens", "run.at(8)"), model.trace(TEXTS) as run:
        run.at(8)


def test_a_write_on_padding(model):
    with refused(PositionError, r"only padding in row 0.*run\.at\(i\).*run\.start", "run.resid_post[0][:, 0] = 0"):
        with model.trace(TEXTS) as run:
            run.resid_post[0][:, 0] = 0


def test_a_write_on_padding_by_index(model):
    with refused(PositionError, r"only padding in row 0", "run.z[1][run.rows, [0, 5]] = 0"), model.trace(TEXTS) as run:
        run.z[1][run.rows, [0, 5]] = 0


def test_padding_reads_as_zero_and_the_rest_is_free_to_write(model):
    with model.trace(TEXTS) as run:
        h = run.resid_post[0].save()
        run.resid_post[0][:, 2:] += 1  # part padding, part text: allowed
        run.logits.save()
    assert not h.value[0, : int(run.start[0])].any() and h.value[1, 0].any()


# -- sites ---


def test_an_unknown_site_and_its_neighbours(model):
    with refused(SiteError, r"no site 'resid_pst'; did you mean resid_p", "run.resid_pst[0]"), model.trace(IDS) as run:
        run.resid_pst[0]


def test_a_layer_that_is_not_there(model):
    with refused(SiteError, r"layers 0 to 1", "run.z[2]"), model.trace(IDS) as run:
        run.z[2]


def test_a_site_without_its_layer(model):
    with refused(SiteError, r"write run\.z\[layer\] = value", "run.z = 0"), model.trace(IDS) as run:
        run.z = 0


def test_a_stack_of_layers_is_a_copy(model):
    with refused(SiteError, r"copy of several layers of z.*run\.z\[layer\]", "run.z[:][0, :, -1] = 0"):
        with model.trace(IDS) as run:
            run.z[:][0, :, -1] = 0


def test_many_layers_are_not_assigned_at_once(model):
    with refused(SiteError, r"one layer at a time", "run.z[:] = 0"), model.trace(IDS) as run:
        run.z[:] = 0


def test_stacked_reads(model):
    with model.trace(IDS) as run:
        every, some = run.z[:].save(), run.resid_post[[1, 0]].save()
        ones = [run.z[0].save(), run.z[1].save(), run.resid_post[1].save()]
    assert torch.equal(every.value, torch.stack([ones[0].value, ones[1].value]))
    assert torch.equal(some.value[0], ones[2].value)


def test_names_of_transformer_lens(model):
    with model.trace(IDS) as run:
        a, b = run["blocks.1.attn.hook_z"].save(), run.z[1].save()
        run["blocks.0.hook_resid_post"][:, -1] = 0
        c = run.resid_pre[1].save()
    assert torch.equal(a.value, b.value) and not c.value[:, -1].any()


def test_a_value_of_the_wrong_shape(model):
    line = "run.resid_post[0][:, -1] = torch.zeros(7)"
    with refused(ShapeError, r"float32\[7\].*float32\[2, 12\]", line), model.trace(IDS) as run:
        run.resid_post[0][:, -1] = torch.zeros(7)


def test_a_whole_site(model, plain):
    other = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
    with model.trace(IDS) as run:
        run.resid_post[0] = other
        out = run.logits.save()
    close(out.value, plain.logits(IDS, [plain.after(plain.layers[0], lambda x: other)]))


# -- prompts and metrics ---


def test_an_answer_of_several_tokens(model):
    line = 'weft.prob(run.logits[:, -1], " red cat")'
    with refused(TokenError, r"is 2 tokens, not one.*weft\.score", line), model.trace(TEXTS) as run:
        weft.prob(run.logits[:, -1], " red cat")


def test_score_is_the_sum_of_the_answers_tokens(model, plain):
    prompts, answers = ["The red", "Alice saw the old"], [" cat", " moon and sun"]
    with model.session() as s:
        score = weft.score(s.run([p + a for p, a in zip(prompts, answers, strict=True)]), answers).save()
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        logs = plain.logits(prompt + answer)[0].log_softmax(-1)
        ids = plain.ids(prompt + answer)[0]
        first = plain.ids(prompt).shape[1]
        close(score.value[row], sum(logs[i - 1, ids[i]] for i in range(first, len(ids))))


def test_a_doubled_bos(model):
    with refused(TokenError, "twice", 's.run("<bos>The red cat")'), model.session() as s:
        s.run("<bos>The red cat")


def test_tokens_outside_the_vocabulary(model):
    with refused(TokenError, "token id", "s.run(torch.tensor([[3, 4000]]))"), model.session() as s:
        s.run(torch.tensor([[3, 4000]]))


def test_an_option_that_generate_does_not_have(model):
    with refused(ProgramError, "no option 'top_k'; it has", "s.generate(TEXTS, top_k=3)"), model.session() as s:
        s.generate(TEXTS, top_k=3)


def test_a_step_that_a_generation_does_not_have(model):
    with refused(ProgramError, "steps 0 to 2", "g.step(3)"), model.session() as s:
        g = s.generate(TEXTS, max_new_tokens=3)
        g.step(3)


def test_waiting_is_for_servers(model):
    with pytest.raises(SessionError, match=r"weft\.connect\(url\)"), model.session(wait=False) as s:
        s.run(IDS).logits.save()


def test_an_error_travels(model):
    with pytest.raises(WeftError) as error, model.trace(IDS) as run:
        run.resid_pst[0]
    again = pickle.loads(pickle.dumps(error.value))
    assert type(again) is type(error.value) and again.where == error.value.where and str(again) == str(error.value)


# -- counts ---


def test_edits_are_counted_and_add_up(model):
    with model.session() as s:
        run = s.run(IDS)
        run.resid_post[1][:, -1] = 0
        run.resid_post[0][:, -1] = 0
        run.resid_post[0].save()
    edits = s.record.edits
    assert edits.asked == 2 == edits.applied + edits.without_effect
    assert edits.without_effect <= 1


def test_the_last_logits_alone_are_those_of_all(model):
    with model.trace(IDS) as run:
        last = run.logits[:, -1].save("last")
        whole = run.fork().logits.save("whole")
    with model.trace(IDS) as run:
        alone = run.logits[:, -1].save()
    with model.trace(IDS) as run:
        run.logits[:, -1].save("last"), run.logits[:, 1].save("second")
    close(alone.value, last.value)
    close(alone.value, whole.value[:, -1])
    close(run.session.results["second"], whole.value[:, 1])
