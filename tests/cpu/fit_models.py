"""What the tests of fit learn from: a model with a plane planted in a random rotation of its stream, and its data."""

from __future__ import annotations

import torch
from torch import nn

D_MODEL, TOKENS, PLANE = 16, 40, 2


def planted_plane(seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A GPT-2 of two layers whose logits depend on its tokens through one plane of resid_post[0] alone, and that plane.

    In the basis of a random rotation, a token's embedding is a point on a circle in the plane and noise of constant length
    everywhere else, along (1, 1, …) too, which layer norm takes away. The second layer's MLP reads the plane and writes to
    it, and the unembedding reads it. As lengths are constant, exchanging the plane's part exchanges the logits exactly.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=2, n_head=2, n_embd=D_MODEL, n_inner=32, vocab_size=TOKENS, n_positions=8, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    module = GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    basis = torch.linalg.qr(torch.cat([torch.ones(D_MODEL, 1), draw(D_MODEL, D_MODEL - 1)], 1)).Q
    ones, plane, rest = basis.split([1, PLANE, D_MODEL - 1 - PLANE], 1)
    angles = torch.rand(TOKENS, generator=generator) * 6.28
    points = torch.stack([angles.cos(), angles.sin()], 1) * 2
    noise = nn.functional.normalize(draw(TOKENS, rest.shape[1]), dim=1) * 4
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        module.transformer.wte.weight.copy_(points @ plane.T + noise @ rest.T + draw(TOKENS, 1) @ ones.T)
        mlp = module.transformer.h[1].mlp
        mlp.c_fc.weight.copy_(plane @ draw(PLANE, 32))
        mlp.c_fc.bias.copy_(draw(32))
        mlp.c_proj.weight.copy_(0.3 * draw(32, PLANE) @ plane.T)
        module.lm_head.weight.copy_(draw(TOKENS, PLANE) @ plane.T)
    return module, plane


def pairs(rows: int = 64, pos: int = 5, tokens: int = TOKENS, seed: int = 1) -> dict[str, torch.Tensor]:
    """Prompts and others to exchange with, LongTensors [rows, pos]."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randint(0, tokens, (rows, pos), generator=generator) for name in ("base", "source")}


def largest_angle(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest principal angle between the column spaces of two orthonormal matrices, in degrees."""
    least = torch.linalg.svdvals(a.double().T @ b.double()).min().clamp(max=1.0)
    return float(torch.rad2deg(torch.arccos(least)))
