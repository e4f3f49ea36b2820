"""Views that are read."""

import einops
import torch

from snippets import randn, snippet

W = randn(12, 7)


@snippet
def last_token(h):
    return h[:, -1]


@snippet
def slices(h):
    return h[:, 1:4, ::3]


@snippet
def ellipsis_and_none(h):
    return h[..., None, 2], h[None, ..., -1:]


@snippet
def transposed(h):
    return h.transpose(1, 2), h.mT, h.permute(2, 0, 1), h[0].T, h[0].t(), h.swapaxes(0, 1), torch.movedim(h, 2, 0)


@snippet
def heads(h):
    return h.view(2, 5, 3, 4).transpose(1, 2)


@snippet
def reshaped(h):
    return h.reshape(10, 12), h.flatten(1), h.unflatten(2, (3, 4)), h.view(-1), h.reshape(-1, 6)


@snippet
def reshape_of_transposed(h):
    return h.transpose(1, 2).reshape(2, 60), h.permute(1, 0, 2).reshape(5, -1), h.mT.contiguous().view(-1)


@snippet
def expanded(h):
    return h[:, :1].expand(2, 4, 12), h[:, 0].unsqueeze(1).expand_as(h), h[0, 0].expand(3, -1)


@snippet
def broadcast(h):
    a, b = torch.broadcast_tensors(h, h[:, :1])
    return a + b, torch.broadcast_to(h[:1, :1], (2, 5, 12))


@snippet
def squeezed(h):
    return h[:, :1].squeeze(1), h[:1].squeeze(), h.unsqueeze(0).squeeze(0), h[:1, :1].squeeze((0, 1))


@snippet
def split_in_three(h):
    q, k, v = h.split(4, dim=-1)
    return q * k + v


@snippet
def chunked(h):
    a, b = h.chunk(2, dim=-1)
    return a * torch.sigmoid(b), h.chunk(3, 1)[2], torch.tensor_split(h, 3, 1)[0]


@snippet
def split_unevenly(h):
    a, b, c = torch.split(h, [1, 3, 8], dim=2)
    return a, b, c


@snippet
def unbound(h):
    first, second = h
    return [first - second, *h[0].unbind(0)[:2]]


@snippet
def windows(h):
    return h.unfold(1, 3, 1).mean(-1), h.unfold(2, 4, 4).sum(-1)


@snippet
def diagonals(h):
    return h.diagonal(0, 1, 2), torch.diagonal(h[0], 1), h[0, :, :5].diagonal().sum(), torch.diag(h[0, :, :5])


@snippet
def narrowed(h):
    return h.narrow(1, 2, 3), h.select(1, 3), torch.narrow(h, 2, -4, 2)


@snippet
def einops_heads(h):
    x = einops.rearrange(h, "b p (head d) -> b head p d", head=3)
    return einops.reduce(x, "b head p d -> b head", "mean"), einops.repeat(h[:, 0], "b d -> b n d", n=3)


@snippet
def einops_contraction(h):
    return einops.einsum(h, W, "b p d, d k -> b p k"), torch.einsum("bpd,bqd->bpq", h, h)


@snippet
def einops_of_pieces(h):
    parts = einops.rearrange(h, "b p (three d) -> three b p d", three=3)
    return parts[0] @ parts[1].mT, einops.pack([h, h[:, :2]], "b * d")[0]


@snippet
def flipped_and_rolled(h):
    return h.flip(1), h.roll(1, 1), torch.roll(h, (1, 2), (1, 2)), torch.fliplr(h[0]), h[0].rot90()


@snippet
def repeated(h):
    return h[:, :1].repeat(1, 3, 1), h[0, 0].tile(2), h[:, 0].repeat_interleave(2, dim=0)


@snippet
def shape_as_numbers(h):
    batch, pos, d = h.shape
    return h.reshape(batch * pos, d), h.size(-1), h.numel(), len(h), h.ndim, h.stride(), h.is_contiguous()


@snippet
def a_view_is_kept_and_read_again(h):
    last = h[:, -1]
    return last.norm(dim=-1), last[:, 0], last[..., 1:3]


@snippet
def view_as_other(h, g):
    return h.view_as(g), h.reshape_as(g.flatten(0, 1)), h.expand_as(g)


@snippet
def atleast(h):
    return torch.atleast_2d(h[0, 0]), torch.atleast_3d(h[0]), torch.ravel(h[0]), torch.squeeze(h[:1])


@snippet
def long_chain(h):
    return h.view(2, 5, 3, 4)[:, 1:].transpose(1, 2)[..., ::2].flatten(0, 1)[1:, -1, None, 1]


@snippet
def stacked_views(h):
    return torch.stack([h[:, i] for i in range(5)], 1), torch.cat([h[:, :1], h[:, 2:]], 1), torch.hstack([h, h])
