"""model.fit against training loops written by hand with hooks, and what it recovers of a planted subspace."""

from __future__ import annotations

import errno
import os
import signal

import fit_plain
import pytest
import torch
from fit_losses import exchange, masked, start_of
from fit_models import largest_angle, pairs, planted_plane
from tests.tiny import tiny_gpt2, tiny_llama

import weft
from weft.errors import (
    BoundsError,
    ExecutionError,
    GradientError,
    PositionError,
    ProgramError,
    SessionError,
    ShapeError,
    SiteError,
)
from weft.planted.words import VOCABULARY, word_tokenizer
from weft.trace.fitdata import order

PLANS = ("auto", "reference")


@pytest.mark.parametrize("plan", PLANS)
def test_das_is_the_loop_written_by_hand_step_by_step(plan: str) -> None:
    data, start = pairs(24, tokens=17), start_of(12)
    losses, learned = fit_plain.das(tiny_gpt2(1), 0, start, data, 8, 30, 0.05)
    rotation = start.clone()
    fit = weft.load(tiny_gpt2(1)).fit(
        exchange(rotation, 0), {"R": rotation}, data, steps=30, lr=0.05, batch_size=8, project="orthogonal", plan=plan
    )
    assert fit.loss.shape == (30,)
    assert torch.allclose(fit.loss, losses, rtol=0, atol=1e-5)
    assert torch.allclose(rotation, learned, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", (3, 4, 5))
def test_das_recovers_a_planted_plane(seed: int) -> None:
    module, plane = planted_plane()
    rotation = start_of(16, seed=seed)
    assert largest_angle(rotation, plane) > 45
    fit = weft.load(module).fit(
        exchange(rotation, 0), rotation, pairs(128), steps=500, lr=0.05, batch_size=64, project="orthogonal"
    )
    assert fit.steps == 500
    assert largest_angle(rotation, plane) < 5


@pytest.mark.parametrize("plan", PLANS)
def test_a_head_mask_with_an_l1_term_is_the_loop_written_by_hand(plan: str) -> None:
    data, start = pairs(24, tokens=17), torch.full((2, 3), 0.5)
    losses, learned = fit_plain.head_mask(tiny_gpt2(1), start, data, 8, 30, 0.05, 0.1)
    mask = start.clone()
    fit = weft.load(tiny_gpt2(1)).fit(
        masked(mask, 0.1), mask, data, steps=30, lr=0.05, batch_size=8, project=("clamp", 0, 1), plan=plan
    )
    assert torch.allclose(fit.loss, losses, rtol=0, atol=1e-5)
    assert torch.allclose(mask, learned, rtol=0, atol=1e-5)
    assert 0 < float((mask != start).float().mean())


def test_batches_that_come_again_are_begun_at_the_first_changed_layer() -> None:
    data, rotation = pairs(16, tokens=19), start_of(16)
    fit = weft.load(tiny_llama(1)).fit(exchange(rotation, 1), rotation, data, steps=10, lr=0.01, batch_size=8)
    # Whole: 2 runs × 3 layers × 8 × 5 tokens for the proof; before: the source (3 layers) and the base to layer 2, each
    # for 2 batches; then 10 steps and the proof of one layer alone.
    layers = 2 * 3 + 2 * (3 + 3) + 10
    assert fit.outcome.work["layer_tokens_done"] == layers * 8 * 5


def test_a_module_comes_back_trained_and_equals_torchs_own_loop() -> None:
    tokens, labels = torch.arange(24).reshape(4, 6) % 17, torch.tensor([0, 1, 1, 0])
    module = tiny_gpt2(1)
    stream = module(tokens, output_hidden_states=True).hidden_states[1][:, -1].detach()
    probes = [torch.nn.Sequential(torch.nn.Linear(12, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)) for _ in range(2)]
    probes[1].load_state_dict(probes[0].state_dict())
    optimiser = torch.optim.AdamW(probes[0].parameters(), lr=0.02, weight_decay=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(probes[0](stream), labels).backward()
        optimiser.step()

    def loss(s, batch):
        seen = probes[1](s.run(batch[0]).resid_post[0][:, -1])
        return torch.nn.functional.cross_entropy(seen, batch[1])

    weft.load(module).fit(
        loss, probes[1], (tokens, labels), steps=20, lr=0.02, optimizer=torch.optim.AdamW, weight_decay=0.1
    )
    for trained, expected in zip(probes[1].parameters(), probes[0].parameters(), strict=True):
        assert torch.allclose(trained, expected, rtol=0, atol=1e-6)


OPTIMISERS = {
    "sgd": ({"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, torch.optim.SGD),
    "adam": ({"betas": (0.8, 0.9), "eps": 1e-6, "amsgrad": True}, torch.optim.Adam),
    "adamw": ({"weight_decay": 0.2}, torch.optim.AdamW),
}


def bowl(x: torch.Tensor):
    """A loss that needs no model: its gradient is written by hand below."""
    target = torch.tensor([1.0, -2.0, 3.0])
    return lambda s, batch: ((x - target) ** 2 * torch.tensor([1.0, 4.0, 0.5])).sum()


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_schedules_and_clipping_are_torchs(name: str) -> None:
    options, kind = OPTIMISERS[name]
    mine, theirs = torch.zeros(3), torch.zeros(3, requires_grad=True)
    optimiser = kind([theirs], lr=0.1, **options)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: (t + 1) / 4 if t < 4 else 1 - (t - 4) / 16)
    for _ in range(20):
        optimiser.zero_grad()
        bowl(theirs)(None, None).backward()
        torch.nn.utils.clip_grad_norm_([theirs], 2.0)
        optimiser.step()
        warmup.step()
    weft.load(tiny_gpt2(1)).fit(
        bowl(mine), mine, steps=20, lr=0.1, optimizer=name, schedule="linear", warmup=4, clip_norm=2.0, **options
    )
    assert torch.equal(mine, theirs.detach())


def test_what_is_resumed_is_as_if_it_had_never_stopped(tmp_path) -> None:
    model = weft.load(tiny_gpt2(1))
    data = pairs(24, tokens=17)
    whole, half = start_of(12), start_of(12)
    given = {"lr": 0.05, "batch_size": 8, "project": "orthogonal", "schedule": "cosine", "horizon": 20}
    losses = model.fit(exchange(whole, 0), whole, data, steps=20, **given).loss
    model.fit(exchange(half, 0), half, data, steps=9, checkpoint=tmp_path / "half", **given)
    rest = start_of(12)
    fit = model.fit(exchange(rest, 0), rest, data, steps=20, resume=tmp_path / "half", **given)
    assert fit.steps == 20
    assert torch.equal(rest, whole)
    assert torch.equal(fit.loss, losses)


def full_after(monkeypatch, whole: int) -> None:
    """The disk is full once so many checkpoints are in place."""
    put, done = os.replace, []

    def replace(beside, path) -> None:
        if str(path).endswith("checkpoint"):
            if len(done) >= whole:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done.append(path)
        put(beside, path)

    monkeypatch.setattr(os, "replace", replace)


def test_a_full_disk_on_the_way_is_a_warning_and_at_the_end_an_error_that_has_the_fit(tmp_path, monkeypatch) -> None:
    vector, alone, path = torch.zeros(12), torch.zeros(12), tmp_path / "checkpoint"
    model = weft.load(tiny_gpt2(1))
    model.fit(moved(alone), alone, TOKENS, steps=20, lr=0.1)
    full_after(monkeypatch, 3)
    with (
        pytest.warns(UserWarning, match=r"No space left on device.*training goes on"),
        pytest.raises(ExecutionError, match=r"cannot be written.*your tensors hold what was learned") as caught,
    ):
        model.fit(moved(vector), vector, TOKENS, steps=20, lr=0.1, checkpoint=path)
    assert caught.value.fit.steps == 20
    assert torch.equal(vector, alone) and torch.equal(next(iter(caught.value.fit.params.values())), alone)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["checkpoint"], "a part of a checkpoint was left"
    monkeypatch.undo()
    again = torch.zeros(12)
    resumed = model.fit(moved(again), again, TOKENS, steps=20, lr=0.1, resume=path)
    assert resumed.steps == 20 and torch.equal(again, alone), "the last whole checkpoint is as good as before"


def test_prompts_of_different_lengths_are_the_same_as_alone() -> None:
    words = [" ".join(VOCABULARY[4 + (3 * row + n) % 12] for n in range(2 + row)) for row in range(4)]
    module = tiny_gpt2(1, vocab_size=len(VOCABULARY))
    model = weft.load(module, tokenizer=word_tokenizer())
    vector, alone = torch.zeros(12), torch.zeros(12, requires_grad=True)

    def loss(s, batch):
        run = s.run(batch)
        run.resid_post[0][:, -1] += vector
        return run.logits[:, -1, 3].mean()

    fit = model.fit(loss, vector, words, steps=1, lr=1.0, optimizer="sgd")
    gradient = torch.zeros(12)
    for text in words:
        with model.session() as s:
            run = s.run(text)
            run.resid_post[0][:, -1] += alone
            g = weft.grad(run.logits[:, -1, 3].sum(), alone).save("g")
        gradient += g.value / len(words)
    assert torch.allclose(vector, -gradient, atol=1e-6)
    assert fit.steps == 1


def moved(vector: torch.Tensor, layer: int = 0):
    """A vector added at the last position, and one logit."""

    def loss(s, batch):
        run = s.run(batch)
        run.resid_post[layer][:, -1] += vector
        return run.logits[:, -1, 3].mean()

    return loss


TOKENS = torch.ones(4, 3, dtype=torch.long)


def test_a_parameter_that_the_loss_does_not_reach_is_named() -> None:
    vector, other = torch.zeros(12), torch.zeros(5)
    with pytest.raises(GradientError, match="does not depend on other"):
        weft.load(tiny_gpt2(1)).fit(moved(vector), {"v": vector, "other": other}, TOKENS, steps=2, lr=0.1)
    behind = lambda s, batch: moved(vector.detach())(s, batch)  # noqa: E731
    with pytest.raises(GradientError, match="does not depend on"):
        weft.load(tiny_gpt2(1)).fit(behind, vector, TOKENS, steps=2, lr=0.1)


def test_a_batch_of_another_shape_is_named() -> None:
    vector = torch.zeros(12)
    batches = [TOKENS, TOKENS, torch.ones(4, 2, dtype=torch.long)]
    with pytest.raises(ShapeError, match=r"batch 2 is of another shape.*int64\[4, 2\], not int64\[4, 3\]"):
        weft.load(tiny_gpt2(1)).fit(moved(vector), vector, batches, steps=3, lr=0.1)
    with pytest.raises(ShapeError, match="tokens has 4, answers has 3"):
        data = {"tokens": TOKENS, "answers": torch.zeros(3)}
        weft.load(tiny_gpt2(1)).fit(moved(vector), vector, data, steps=3, lr=0.1)


def test_batches_one_by_one_are_the_same_as_their_rows() -> None:
    tokens = torch.arange(36).reshape(12, 3) % 17
    found = []
    for data, given in (([tokens[:4], tokens[4:8], tokens[8:]], {}), (tokens, {"batch_size": 4})):
        vector = torch.zeros(12)
        weft.load(tiny_gpt2(1)).fit(moved(vector), vector, data, steps=3, lr=0.1, **given)
        found.append(vector)
    assert torch.equal(*found)
    assert torch.equal(order(5, 3, 2, False, 0), torch.tensor([[0, 1], [2, 3], [4, 0]]))


def test_every_epoch_has_every_row() -> None:
    drawn = order(6, 9, 4, True, 7)
    assert drawn.shape == (9, 4)
    assert all(sorted(lap.tolist()) == list(range(6)) for lap in drawn.reshape(6, 6))
    assert not torch.equal(drawn.reshape(6, 6)[0], drawn.reshape(6, 6)[1])
    assert torch.equal(drawn, order(6, 9, 4, True, 7))


def test_a_loss_that_is_no_number_keeps_what_was_learned() -> None:
    vector = torch.zeros(12)

    def loss(s, batch):
        return (1.05 + vector.mean()).sqrt() + 0 * moved(vector)(s, batch)

    with pytest.raises(ExecutionError, match=r"nan at step \d+.*is kept") as caught:
        weft.load(tiny_gpt2(1)).fit(loss, vector, TOKENS, steps=50, lr=0.1)
    fit = caught.value.fit
    assert len(fit.loss) == fit.steps > 5
    assert torch.equal(fit.params["param"], vector)
    assert float(vector.mean()) < -0.9


def test_ctrl_c_ends_a_loop_after_a_step_and_keeps_what_was_learned(tmp_path) -> None:
    vector, model = torch.zeros(12), weft.load(tiny_gpt2(1))

    def interrupt(row):
        if row["step"] == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="after 7 of 50 steps"):
        fit = model.fit(
            moved(vector), vector, TOKENS, steps=50, lr=0.1, on_metrics=interrupt, checkpoint=tmp_path / "c"
        )
    seven = torch.zeros(12)
    model.fit(moved(seven), seven, TOKENS, steps=7, lr=0.1)
    assert fit.steps == 7
    assert torch.equal(vector, seven)
    assert weft.replay(tmp_path / "c", model).agrees()


def test_early_stopping_and_what_is_recorded() -> None:
    x = torch.zeros(3)
    model = weft.load(tiny_gpt2(1))
    fit = model.fit(bowl(x), x, steps=400, lr=0.1, below=0.5, every=10)
    assert "ended early" in fit.stopped
    assert fit.steps < 400
    assert fit.history[:-1, 0].tolist() == list(range(0, fit.steps - 1, 10))[: len(fit.history) - 1]
    assert float(fit.loss[-1]) < 0.5
    y = torch.tensor([1.0, -2.0, 3.0])
    assert model.fit(bowl(y), y, steps=400, lr=0.0, patience=5).steps == 6


def test_options_that_do_not_exist_are_refused() -> None:
    x, model = torch.zeros(3), weft.load(tiny_gpt2(1))
    with pytest.raises(ProgramError, match="adam has no option 'momentum'"):
        model.fit(bowl(x), x, steps=2, lr=0.1, momentum=0.9)
    with pytest.raises(ProgramError, match="schedule must be one of"):
        model.fit(bowl(x), x, steps=2, lr=0.1, schedule="stairs")
    with pytest.raises(ProgramError, match="one of sgd, adam, adamw"):
        model.fit(bowl(x), x, steps=2, lr=0.1, optimizer="lion")


def test_parameters_are_changed_by_the_optimiser_alone() -> None:
    x, model = torch.zeros(3), weft.load(tiny_gpt2(1))

    def changing(s, batch):
        x.add_(1.0)
        return x.sum()

    with pytest.raises(SiteError, match="changed by the optimiser alone"):
        model.fit(changing, x, steps=2, lr=0.1)
    assert x.tolist() == [0, 0, 0]


def test_a_metric_is_recorded_and_told() -> None:
    x, told = torch.zeros(3), []
    model = weft.load(tiny_gpt2(1))
    fit = model.fit(lambda s, b: (bowl(x)(s, b), {"size": x.norm()}), x, steps=4, lr=0.1, on_metrics=told.append)
    assert fit.metrics["size"][0] == 0
    assert [row["size"] for row in told] == fit.metrics["size"].tolist()
    assert torch.allclose(fit.metrics["size"][1], torch.tensor(0.1 * 3**0.5, dtype=torch.float64))


def test_a_model_that_is_no_language_model_takes_its_tensors_by_keyword() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
    inputs, wanted = torch.randn(8, 4), torch.randn(8, 2)
    mine, theirs = torch.zeros(6), torch.zeros(6, requires_grad=True)
    optimiser = torch.optim.SGD([theirs], lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        hidden = module[1](module[0](inputs)) + theirs
        (module[2](hidden) - wanted).square().mean().backward()
        optimiser.step()

    def loss(s, batch):
        run = s.run(input=batch["x"])
        hidden = run.module("1")
        hidden.output = hidden.output + mine
        return (run.module("2").output - batch["y"]).square().mean()

    model = weft.load(module)
    fit = model.fit(loss, mine, {"x": inputs, "y": wanted}, steps=5, lr=0.1, optimizer="sgd")
    assert torch.allclose(mine, theirs.detach(), atol=1e-6)
    assert fit.steps == 5


def test_standing_edits_are_in_every_step() -> None:
    push = torch.randn(12, generator=torch.Generator().manual_seed(2))
    model = weft.load(tiny_gpt2(1))
    with model.edit() as steered:
        steered.resid_post[0][:, -1] += push

    def pushed(vector):
        def loss(s, batch):
            run = s.run(batch)
            run.resid_post[0][:, -1] += push
            run.resid_post[1][:, -1] += vector
            return run.logits[:, -1, 3].mean()

        return loss

    edited, written = torch.zeros(12), torch.zeros(12)
    first = steered.fit(moved(edited, 1), edited, TOKENS, steps=5, lr=0.1)
    second = model.fit(pushed(written), written, TOKENS, steps=5, lr=0.1)
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(edited, written)
    assert not torch.equal(first.loss, model.fit(moved(written, 1), written, TOKENS, steps=5, lr=0.1).loss)


def test_fit_is_an_experiment_of_its_own() -> None:
    vector, model = torch.zeros(12), weft.load(tiny_gpt2(1))
    with pytest.raises(SessionError, match="outside of any session's block"), model.session():
        model.fit(moved(vector), vector, TOKENS, steps=1, lr=0.1)


def test_text_is_not_looked_for_in_a_batch() -> None:
    vector = torch.zeros(12)
    model = weft.load(tiny_gpt2(1, vocab_size=len(VOCABULARY)), tokenizer=word_tokenizer())

    def loss(s, batch):
        run = s.run(batch)
        run.resid_post[0][run.rows, run.at(" cat")] += vector
        return run.logits[:, -1, 3].mean()

    with pytest.raises(PositionError, match="give the places as a column of the data"):
        model.fit(loss, vector, ["A red cat", "A cat sat"], steps=1, lr=0.1)


def test_an_error_at_a_step_names_the_users_line_and_keeps_what_was_learned() -> None:
    vector, places = torch.zeros(12), torch.tensor([[0], [1], [99]])

    def loss(s, batch):
        logits = s.run(batch["tokens"]).logits[:, -1] + vector.sum()
        return logits.gather(1, batch["place"]).mean()

    data = {"tokens": torch.ones(3, 2, dtype=torch.long), "place": places}
    with pytest.raises(BoundsError, match=r"holds 99.*2 of 6 steps is kept") as caught:
        weft.load(tiny_gpt2(1)).fit(loss, vector, data, steps=6, lr=0.1, batch_size=1)
    assert "gather(1" in caught.value.where.text
    assert caught.value.fit.steps == 2
    assert vector.all()


def test_a_parametrised_module_stays_what_it_is_said_to_be() -> None:
    torch.manual_seed(0)
    basis = torch.nn.utils.parametrizations.orthogonal(torch.nn.Linear(2, 12, bias=False))
    before = basis.weight.detach().clone()

    def loss(s, batch):
        run = s.run(batch)
        here = run.resid_post[0][:, -1]
        run.resid_post[0][:, -1] = here - here @ basis.weight @ basis.weight.T
        return run.logits[:, -1, 3].mean()

    fit = weft.load(tiny_gpt2(1)).fit(loss, basis, TOKENS, steps=5, lr=0.1)
    assert fit.loss[-1] < fit.loss[0]
    assert torch.allclose(basis.weight.T @ basis.weight, torch.eye(2), atol=1e-5)
    assert float((basis.weight - before).detach().abs().max()) > 0.01
