"""New tensors made in the block."""

import numpy as np
import torch

from snippets import snippet
from weft.errors import GradientError


@snippet
def zeros_and_ones(h):
    return torch.zeros(12) + h, torch.ones(5, 1) * h, torch.full((2, 1, 1), 3.0) * h, torch.eye(12) @ h.mT


@snippet
def likes(h):
    return torch.zeros_like(h) + h, torch.ones_like(h) * h, torch.full_like(h, 2) * h, torch.empty_like(h).shape


@snippet
def new_methods(h):
    return h.new_zeros(12) + h, h.new_ones(2, 5, 1) * h, h.new_full((12,), 0.5) * h, h.new_tensor([1.0, 2.0])[0] * h


@snippet
def ranges(h):
    return (
        torch.arange(5)[:, None] * h,
        torch.linspace(0, 1, 12) * h,
        h[:, torch.arange(1, 5, 2)],
        torch.logspace(0, 1, 12) * h,
    )


@snippet
def causal_mask(h):
    mask = torch.tril(torch.ones(5, 5))
    return (h @ h.mT).masked_fill(mask == 0, float("-inf")).softmax(-1), mask


@snippet
def tril_indices(h):
    i, j = torch.tril_indices(5, 5)
    return (h @ h.mT)[:, i, j]


@snippet
def tensor_literals(h):
    return h * torch.tensor([1.0] * 12), h[:, torch.tensor([1, 2])], torch.tensor(3.0) * h, torch.as_tensor([2.0]) * h


@snippet
def own_generator(h):
    generator = torch.Generator().manual_seed(5)
    return (
        h + torch.randn(12, generator=generator),
        h * torch.rand(2, 5, 1, generator=generator),
        h[:, torch.randint(0, 5, (3,), generator=generator)],
    )


@snippet
def drawn_when_traced(h):
    return h + torch.randn(12), h + torch.rand_like(h), h + torch.randn_like(h) * 0.1, h[:, torch.randperm(5)]


@snippet
def noise_in_place_on_known(h):
    noise = torch.empty(2, 5, 12).normal_(generator=torch.Generator().manual_seed(6))
    return h + noise, h * torch.bernoulli(torch.full((12,), 0.5), generator=torch.Generator().manual_seed(7))


@snippet
def grid_with_known_rest(h):
    grid = torch.zeros(3, 5)
    grid[0] = torch.arange(5)
    grid[1] = h[0, :, 0]
    return grid, grid.argmax(-1), grid[0].sum() + grid[2, 0]


@snippet
def list_then_stack(h):
    rows = []
    for i in range(5):
        rows.append(h[:, i].norm(dim=-1))
    return torch.stack(rows), torch.cat([r[None] for r in rows])


@snippet
def known_to_known(h):
    a = torch.zeros(12)
    a[::2] = 1
    b = a.clone()
    b[1] = 5
    a += 1
    return h * a, h * b, a @ b


@snippet
def known_from_other_known(h):
    a = torch.ones(3, 4)
    b = a[1]
    c = a.sum(0)
    b *= 3
    d = a.sum(0)
    return c, d, h[..., :4] * b


@snippet
def known_matrix_from_traced_later(h):
    a = torch.zeros(2, 12)
    first = a[0]
    before = a.sum()
    a[1] = h[0, 0]
    first += 1
    return before, a, first


@snippet
def steering_vector_made_inside(h):
    v = torch.zeros(12)
    v[3] = 10.0
    h[:, -1] += v


@snippet
def one_hot_and_friends(h):
    onehot = torch.nn.functional.one_hot(torch.tensor([0, 3]), 12).float()
    return onehot @ h.mT, torch.diag(torch.arange(12.0)) @ h[0].T, torch.block_diag(torch.eye(6), torch.eye(6)) @ h[0].T


@snippet
def windows_and_ramps(h):
    return torch.hann_window(12) * h, torch.triu(torch.ones(12, 12)) @ h[0].T, torch.cumsum(torch.ones(12), 0) * h


@snippet
def alphas(h):
    return torch.stack([h * a for a in torch.linspace(0, 1, 3)]), [h * float(a) for a in torch.arange(0, 1, 0.5)]


@snippet
def written_into_ones_own_tensor(h):
    own = torch.from_numpy(np.zeros((3, 12), dtype=np.float32))
    own[0] = torch.arange(12)  # numbers at hand may go there
    own[1].add_(torch.ones(12))
    return own @ h[0].T


@snippet(raises=GradientError, says="before the block")
def leaf_made_inside(h):
    v = torch.zeros(12)
    v.requires_grad_()  # here


@snippet
def leaf_made_inside_as_one(h):
    v = torch.ones(12, requires_grad=True)
    return h * v


@snippet
def another_model_inside(h):
    layer = torch.nn.TransformerEncoderLayer(12, 3, 8, batch_first=True, dropout=0.0).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(0.1)
        own = layer(torch.from_numpy(np.ones((2, 5, 12), dtype=np.float32)))
    return h + own
