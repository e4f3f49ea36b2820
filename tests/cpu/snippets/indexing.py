"""Advanced indexing, read and written; gather, scatter, sort."""

import numpy as np
import torch

from snippets import randn, snippet
from weft.errors import BoundsError, OpError

ROWS, POS = torch.arange(2), torch.tensor([3, 1])
X = randn(2, 12, seed=8)


@snippet
def per_row_positions(h):
    return h[ROWS, POS], h[ROWS, POS, 3], h[ROWS, POS, 2:5]


@snippet
def write_per_row_positions(h):
    h[ROWS, POS] = X
    h[ROWS, POS, 4] += 1


@snippet
def write_from_other_positions(h, g):
    h[ROWS, POS] = g[ROWS, [0, 4]]


@snippet
def lists_and_arrays(h):
    return h[:, [0, 2]], h[[1, 0]], h[:, np.array([1, 3])], h[:, torch.tensor([-1])], h[0][[0, 0, 1]], h[:, range(2)]


@snippet
def mixed_indices(h):
    return h[0, [1, 2], 3:], h[:, None, [0, 1]], h[..., [0, 3]], h[[0, 1], :, [2, 3]], h[1, ..., torch.tensor(2)]


@snippet
def outer_indices(h):
    return h[:, torch.tensor([0, 2])[:, None], torch.tensor([1, 3, 5])]


@snippet
def write_lists(h):
    h[:, [0, 2]] = 0
    h[[0, 1], [1, 2]] *= 3
    h[:, :, [1, 5]] = h[:, :, [5, 1]]


@snippet
def write_through_view_and_list(h):
    x = h.view(2, 5, 3, 4)
    x[:, [1, 3], 2] = 0
    x[ROWS, POS][:, 0] = 100  # a copy: nothing changes
    return x


@snippet
def accumulate(h):
    out = torch.zeros(4, 12)
    out.index_put_((torch.tensor([0, 1, 1, 3, 0]),), h[0], accumulate=True)
    return out, torch.zeros(4, 12).index_add(0, torch.tensor([0, 1, 1, 3, 0]), h[1])


@snippet
def gathering(h):
    places = h.argsort(-1)[..., :3]
    return h.gather(-1, places), torch.gather(h, 1, POS.view(2, 1, 1).expand(2, 1, 12)), h.take_along_dim(places, -1)


@snippet
def answer_logit(h):
    target = torch.tensor([1, 7])
    return h[:, -1].gather(-1, target[:, None]).squeeze(-1), h[:, -1][torch.arange(2), target]


@snippet
def scattering(h):
    z = torch.zeros_like(h)
    top = h.topk(2, -1)
    return z.scatter(-1, top.indices, top.values), z.scatter_add(-1, top.indices, top.values * 2)


@snippet
def sorting(h):
    values, order = h.sort(-1, descending=True)
    return values, order, h.argsort(1), torch.msort(h), h.kthvalue(2, -1).values, h.topk(3, largest=False).values


@snippet
def index_select(h):
    return h.index_select(1, torch.tensor([4, 0])), torch.take(h, torch.tensor([0, 7])), torch.index_select(h, 2, POS)


@snippet
def traced_places(h):
    best = h[:, -1].argmax(-1)
    return h[ROWS, 0, best], h[torch.arange(2), best % 5]


@snippet
def write_at_traced_places(h):
    best = h[:, :, 0].argmax(-1)
    h[ROWS, best] = 0


@snippet
def traced_index_into_own(h):
    table = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    return table[h.argmax(-1)]


@snippet
def search(h):
    grid = torch.linspace(-2, 2, 5)
    return (
        torch.bucketize(h, grid),
        torch.searchsorted(grid, h.contiguous()),
        torch.isin(h.argmax(-1), torch.tensor([1, 2])),
    )


@snippet
def one_hot(h):
    return torch.nn.functional.one_hot(h.argmax(-1), 12).float() @ h[0].T, torch.eye(12)[h.argmax(-1)]


@snippet
def index_with_item(h):
    i = torch.tensor(3)
    return h[:, i], h[:, i.item()], h[i % 2, int(i)]


@snippet
def flip_by_index(h):
    return h[:, torch.arange(4, -1, -1)], h[:, torch.randperm(5, generator=torch.Generator().manual_seed(1))]


@snippet
def scatter_functions(h):
    a = torch.select_scatter(h, torch.zeros(2, 12), 1, 0)
    b = torch.slice_scatter(h, torch.ones(2, 2, 12), 1, 1, 3)
    return a, b, torch.diagonal_scatter(h[0], torch.zeros(5)), h.index_fill(1, torch.tensor([0]), 2.0)


@snippet
def ranks(h):
    return h.argsort(-1).argsort(-1), (h > h[..., :1]).sum(-1)


@snippet(raises=BoundsError, says="out of")
def beyond_the_end(h):
    return h[:, 7]  # here


@snippet(raises=OpError, says="torch.where")
def nonzero(h):
    return (h > 0).nonzero()  # here


@snippet(raises=OpError, says="torch.where")
def unique(h):
    return h.argmax(-1).unique()  # here


@snippet
def histogram_by_scatter(h):
    return torch.zeros(12).scatter_add(0, h.argmax(-1).flatten(), torch.ones(10)), torch.bincount(
        torch.tensor([1, 1, 2])
    ) * h[0, 0, :3]
