"""Boolean masks, of numbers at hand and of the model's own."""

import torch
import torch.nn.functional as F

from snippets import randn, snippet
from weft.errors import OpError

KEEP = torch.tensor([[True, False, True, True, False], [False, True, True, False, False]])
ROW = torch.tensor([True, False])
DIMS = torch.arange(12) % 3 == 0
N = randn(2, 5, 12, seed=9)


@snippet
def constant_mask(h):
    return h[KEEP], h[ROW], h[:, :, DIMS], h[0, KEEP[0]]


@snippet
def write_constant_mask(h):
    h[KEEP] = 0
    h[:, :, DIMS] += 1
    h[ROW] = h[~ROW]


@snippet
def mask_and_number(h):
    h[KEEP, 3] = 7
    return h[ROW, 1:3], h[torch.tensor([0, 1]), :, 2][KEEP]


@snippet
def traced_mask_assignment(h):
    h[h < 0] = 0


@snippet
def traced_mask_on_leading_axes(h):
    x = h * 1
    x[x.norm(dim=-1) > 3] = 1
    return x


@snippet
def traced_mask_through_view(h):
    x = h * 1
    part = x[:, 1:3]
    part[part > 0] = -1
    return x


@snippet
def where(h, g):
    return torch.where(h > 0, h, g), torch.where(h > g, 1.0, 0.0), h.where(h > 0, 0), torch.where(DIMS, h, -h)


@snippet
def where_with_own(h):
    return torch.where(N > 0, N, h), torch.where(KEEP[..., None], h, float("-inf"))


@snippet
def masked_fill(h):
    return h.masked_fill(h > 1, 1), h.masked_fill(KEEP[..., None], 0.0), h.masked_fill(DIMS, torch.tensor(2.0))


@snippet
def masked_fill_in_place(h):
    h.masked_fill_(~KEEP[..., None], 0)


@snippet
def mask_by_product(h):
    return h * (h > 0), h * KEEP[..., None], (h > 0).float() * h, (h > 0) & (h < 1) | (h == 0), ~(h > 0)


@snippet
def any_and_all(h):
    return (
        (h > 0).any(-1),
        (h > -9).all(),
        torch.isnan(h).any(),
        (h > 0).sum(),
        (h > 0).float().mean(),
        torch.isfinite(h).all(0),
    )


@snippet
def comparisons(h, g):
    return (
        h == g,
        h != 0,
        h >= g,
        torch.lt(h, 1),
        torch.isclose(h, g),
        torch.logical_and(h > 0, g > 0),
        torch.maximum(h, g),
    )


@snippet
def masked_mean(h):
    m = KEEP[..., None].float()
    return (h * m).sum(1) / m.sum(1)


@snippet
def softmax_under_mask(h):
    s = (h @ h.mT).masked_fill(~torch.tril(torch.ones(5, 5)).bool(), -1e9)
    return F.softmax(s, -1)


@snippet
def known_mask_made_inside(h):
    mask = torch.zeros(5, dtype=torch.bool)
    mask[1:3] = True
    return h[:, mask], h.masked_fill(mask[:, None], 0)


@snippet
def write_known_mask_made_inside(h):
    mask = torch.arange(5) > 2
    h[:, mask] = 0
    h[:, ~mask] *= 2


@snippet
def mask_select_on_known(h):
    steps = torch.arange(12)
    return h[..., steps[steps % 2 == 0]], h[..., steps.masked_select(steps > 8)]


@snippet(raises=OpError, says="torch.where")
def read_traced_mask(h):
    return h[h > 0]  # here


@snippet(raises=OpError, says="torch.where")
def masked_select(h):
    return h.masked_select(h > 0)  # here


@snippet(raises=OpError, says="torch.where")
def write_values_at_traced_mask(h):
    h[h > 0] = torch.ones(3)  # here


@snippet
def top_k_mask(h):
    threshold = h.topk(3, -1).values[..., -1:]
    return torch.where(h >= threshold, h, torch.zeros_like(h))


@snippet
def clamp_with_tensors(h, g):
    return (
        torch.clamp(h, min=-g.abs(), max=g.abs()),
        torch.minimum(h, torch.tensor(0.5)),
        h.clamp_min(0),
        h.clamp_max(torch.zeros(12)),
    )
