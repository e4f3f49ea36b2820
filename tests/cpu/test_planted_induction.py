"""The planted model does what its truth says: found here with plain hooks, without any of weft's own machinery."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from weft import planted
from weft.planted.induction import D_HEAD, N_HEADS, N_LAYERS, N_VOCAB, Planted, build, truth

CLEAN = "The Eiffel Tower is in Paris. The Eiffel Tower is in"
CORRUPT = "The Eiffel Tower is in Rome. The Eiffel Tower is in"
SWAPPED = "The cat Rome dog Paris cat", "The dog Rome cat Paris cat"
"""The same words, but `cat` comes before the other city: now what the previous-token head writes matters too."""


@pytest.fixture(scope="module")
def model() -> Planted:
    return build()


def z_of(
    model: Planted, ids: Tensor, patch: Callable[[int, Tensor], None] | None = None
) -> tuple[list[Tensor], Tensor]:
    """Each layer's z [batch, pos, head, d_head], and the last logits, with `patch(layer, z)` changing z in place."""
    seen: list[Tensor] = []

    def at_layer(layer: int) -> Callable:
        def before(_: object, args: tuple[Tensor]) -> tuple[Tensor]:
            z = args[0].unflatten(-1, (N_HEADS, D_HEAD)).clone()
            if patch is not None:
                patch(layer, z)
            seen.append(z)
            return (z.flatten(-2),)

        return before

    blocks = model.model.transformer.h
    hooks = [block.attn.c_proj.register_forward_pre_hook(at_layer(i)) for i, block in enumerate(blocks)]
    with torch.no_grad():
        logits = model.model(ids).logits[:, -1]
    for hook in hooks:
        hook.remove()
    return seen, logits


def effects(model: Planted, clean: str, corrupt: str, where: slice) -> Tensor:
    """[layer, head]: (patched − corrupted)/(clean − corrupted) of logit(Paris) − logit(Rome)."""
    encode = lambda text: model.tokenizer(text, return_tensors="pt").input_ids  # noqa: E731
    paris, rome = model.tokenizer.convert_tokens_to_ids([" Paris", " Rome"])
    diff = lambda logits: float(logits[0, paris] - logits[0, rome])  # noqa: E731
    z, logits = z_of(model, encode(clean))
    top, bottom = diff(logits), diff(z_of(model, encode(corrupt))[1])
    grid = torch.zeros(N_LAYERS, N_HEADS)
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):

            def patch(at: int, into: Tensor, layer: int = layer, head: int = head) -> None:
                if at == layer:
                    into[:, where, head] = z[layer][:, where, head]

            grid[layer, head] = (diff(z_of(model, encode(corrupt), patch)[1]) - bottom) / (top - bottom)
    return grid


def test_it_continues_a_repeated_random_text(model: Planted) -> None:
    draw = torch.Generator().manual_seed(0)
    once = torch.stack([2 + torch.randperm(N_VOCAB - 2, generator=draw)[:30] for _ in range(16)])
    with torch.no_grad():
        logits = model.model(torch.cat([torch.zeros(16, 1, dtype=torch.long), once, once], 1)).logits
    probability = logits[:, 31:-1].softmax(-1).gather(-1, once[:, 1:, None])
    assert probability.min() > 0.99
    assert (logits[:, 1:30].argmax(-1) == once[:, 1:]).float().mean() < 0.1  # the first time round it cannot know


def test_the_last_position_singles_out_the_induction_head(model: Planted) -> None:
    grid = effects(model, CLEAN, CORRUPT, slice(-1, None))
    layer, head = model.truth.induction
    assert grid[layer, head] == pytest.approx(1, abs=0.01)
    grid[layer, head] = 0
    assert grid.abs().max() < 0.01


def test_all_positions_find_the_previous_token_head_as_well(model: Planted) -> None:
    grid = effects(model, *SWAPPED, slice(None))
    # `cat` was followed by Rome in the first text and by Paris in the second.
    assert {tuple(at) for at in (grid > 0.9).nonzero().tolist()} == {model.truth.induction, model.truth.previous_token}
    assert grid[grid < 0.9].abs().max() < 0.01


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_truth_follows_the_seed(seed: int) -> None:
    grid = effects(build(seed=seed), CLEAN, CORRUPT, slice(-1, None))
    assert divmod(int(grid.argmax()), N_HEADS) == truth(seed).induction


def test_the_previous_token_head_looks_one_back_and_the_induction_head_after_the_match(model: Planted) -> None:
    ids = model.tokenizer("The cat dog red cat", return_tensors="pt").input_ids
    model.model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model.model(ids, output_attentions=True).attentions
    back, (layer, head) = model.truth.previous_token, model.truth.induction
    assert patterns[back[0]][0, back[1], range(1, 6), range(5)].min() > 0.999
    assert patterns[layer][0, head, 5, 3] > 0.999  # from the second " cat" to the " dog" after the first
    assert patterns[layer][0, head, 4, 0] > 0.99  # " red" is new: the sink


def test_noise_heads_are_small_but_not_nothing(model: Planted) -> None:
    ids = model.tokenizer(CLEAN, return_tensors="pt").input_ids
    z, _ = z_of(model, ids)
    for layer, head in model.truth.noise:
        out = model.model.transformer.h[layer].attn.c_proj.weight[head * D_HEAD : (head + 1) * D_HEAD]
        norms = (z[layer][0, :, head] @ out).norm(dim=-1)
        assert 0.005 < norms.min() and norms.max() < 0.5  # a planted head writes a one-hot: norm 1


def test_the_same_seed_gives_the_same_weights_and_leaves_the_users_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = build().model.state_dict(), build().model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_tokenizer_keeps_spaces_and_opens_with_bos(model: Planted) -> None:
    ids = model.tokenizer(CLEAN).input_ids
    assert model.tokenizer.convert_ids_to_tokens(ids)[:4] == ["<bos>", "The", " Eiffel", " Tower"]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == CLEAN
    assert len(model.tokenizer(" Paris", add_special_tokens=False).input_ids) == 1


def test_an_unknown_planted_model_is_named_with_those_there_are() -> None:
    with pytest.raises(planted.ModelError, match="no planted model is called 'gpt2'; there are induction"):
        planted.build("gpt2")
