"""Several names for one memory: a change through one is seen through all, as in PyTorch."""

import torch

from snippets import randn, snippet

V = randn(12, seed=3)


@snippet
def through_transpose(h):
    t = h.transpose(1, 2)
    t[:, 0] = 1
    h[0, 0, 1] = 5
    return t


@snippet
def through_reshape_that_shares(h):
    flat = h.reshape(10, 12)
    flat[3] = V
    return flat


@snippet
def through_reshape_that_copies(h):
    flat = h.transpose(0, 1).reshape(10, 12)
    flat[3] = V
    return flat, h.sum()


@snippet
def through_contiguous(h):
    same = h.contiguous()
    same[:, 0] = 2
    other = h.mT.contiguous()
    other[:, 0] = 3
    return same, other


@snippet
def through_flatten_and_unflatten(h):
    h.flatten()[::7] = 0
    h.unflatten(-1, (3, 4))[..., 1, :] += 1


@snippet
def through_diagonal(h):
    h[:, :, :5].diagonal(0, 1, 2).fill_(9)
    x = h[0, :, 5:10] * 1
    x.diagonal()[:] = V[:5]
    return x


@snippet
def through_split(h):
    a, b = h.split(6, -1)
    a *= 2
    b -= a
    return a, b


@snippet
def through_chunk(h):
    for i, part in enumerate(h.chunk(3, -1)):
        part += i


@snippet
def through_unbind(h):
    for i, row in enumerate(h.unbind(1)):
        row.mul_(i)


@snippet
def through_iteration(h):
    for prompt in h:
        prompt[0] = 0
        for token in prompt[1:]:
            token /= 2


@snippet
def through_unfold_without_overlap(h):
    h.unfold(2, 4, 4)[..., 0] = 1


@snippet
def through_squeeze_and_unsqueeze(h):
    h[:, :1].squeeze(1).add_(1)
    h.unsqueeze(0)[0, 0, 1] = 0


@snippet
def through_movedim(h):
    h.movedim(-1, 0)[3] = -1
    h.permute(2, 1, 0)[5, 2] *= 3


@snippet
def through_heads(h):
    heads = h.view(2, 5, 3, 4).transpose(1, 2)
    heads[:, 2, :, 1:3] = 0
    return heads


@snippet
def through_narrow_and_select(h):
    h.narrow(1, 1, 2).select(2, 3).fill_(4)


@snippet
def detach_shares_memory(h):
    d = (h * 2).detach()
    x = h * 2
    x.detach()[:, 0] = 1
    d[:, 0] = 1
    return d, x.detach()


@snippet
def clone_does_not(h):
    c = h.clone()
    c[:, 0] = 0
    return h[:, 0], c


@snippet
def same_dtype_to_is_the_same(h):
    f = h.float()
    f[:, 0] = 0
    t = h.to(torch.float32)
    t[:, 1] = 0
    c = h.to(torch.float32, copy=True)
    c[:, 2] = 0
    return c


@snippet
def two_views_of_a_result(h):
    y = h.softmax(-1)
    a, b = y[:, 1:], y[:, :-1]
    a += 1
    return b


@snippet
def of_a_transposed_result(h):
    y = h.mT * 2
    y.transpose(1, 2).view(2, 60)[:, 3] = 0
    y[:, :, 1] = 7
    return y, y.reshape(-1)


@snippet
def of_a_result_with_transposed_memory(h):
    y = h.transpose(0, 1) + 1
    y.transpose(0, 1).view(-1)[5:9] = 0
    return y


@snippet
def of_a_known_tensor(h):
    base = torch.zeros(4, 12)
    row, flat = base[1], base.view(-1)
    row[:] = 2
    flat[:3] = 1
    base[0] += h[0, 0]
    row += 1
    return base, row, flat


@snippet
def of_a_known_tensor_with_transposed_memory(h):
    base = torch.zeros(12, 4).t()
    base[1] = h[0, 0]
    base.t().view(-1)[7:9] = 3
    return base


@snippet
def swapped_names(h):
    a, b = h[:, 0], h[:, 1]
    a, b = b, a
    a += 1
    return a, b


@snippet
def real_view(h):
    return h.real[:, 0], h.resolve_conj() + 1, h.conj() * 2


@snippet
def in_place_result_is_the_same_object(h):
    y = h * 1
    z = y.add_(1)
    return z is y, y


@snippet
def values_and_indices(h):
    top = torch.topk(h, 3, dim=-1)
    top.values[..., 0] = 0
    return top.values, top.indices, torch.max(h, 1).values, h.sort(descending=True)[1]
