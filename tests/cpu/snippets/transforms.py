"""vmap, functional transforms, and functions of functions."""

import functools

import torch
from torch import nn

from snippets import randn, snippet

M = randn(5, 12, 12, seed=13)
D = randn(12, seed=14)
PARTS = randn(4, 12, seed=15)


@snippet
def vmap_over_batch(h):
    return torch.vmap(lambda x: x @ x.T)(h)


@snippet
def vmap_over_positions(h):
    return torch.vmap(lambda x, m: x @ m, in_dims=(1, 0), out_dims=1)(h, M)


@snippet
def vmap_with_constant(h):
    return torch.vmap(lambda d: (h * d).sum(-1))(PARTS)


@snippet
def nested_vmap(h):
    return torch.vmap(torch.vmap(lambda x: torch.dot(x, D)))(h)


@snippet
def vmap_reductions(h):
    return torch.vmap(lambda x: (x - x.mean(0)).norm(dim=-1).max())(h), torch.func.vmap(lambda x: x.softmax(-1))(h)


@snippet
def functional_call(h):
    layer = nn.Linear(12, 12, bias=False)
    return torch.func.functional_call(layer, {"weight": M[0]}, (h,))


@snippet
def map_and_reduce(h):
    return functools.reduce(torch.add, map(torch.relu, h.unbind(1))), sum(h[:, i] for i in range(5)), max([1, 2]) * h


@snippet
def partial_and_lambda(h):
    f = functools.partial(torch.add, alpha=2)
    return f(h, D), (lambda x: x * 2)(h)


@snippet
def closure_and_generator(h):
    def rows():
        for i in range(5):
            yield h[:, i] * i

    return torch.stack(list(rows()), 1), [x.sum() for x in rows()]


@snippet
def recursion(h):
    def power(x, n):
        return x if n == 0 else power(x @ M[n], n - 1)

    return power(h, 3)


@snippet
def dictionary_of_results(h):
    parts = {i: h[:, i] for i in range(5)}
    return torch.stack([parts[i] for i in sorted(parts, reverse=True)])


@snippet
def in_a_class(h):
    class Patch:
        def __init__(self, x):
            self.x = x

        def __call__(self, scale):
            return self.x * scale

    return Patch(h)(2)


@snippet
def cartesian(h):
    a, b = torch.meshgrid(h[0, 0], D, indexing="ij")
    return a * b, torch.cartesian_prod(h[0, 0, :2], D[:2]), torch.combinations(h[0, 0, :4])


@snippet
def block_diagonal(h):
    return torch.block_diag(h[0, :, :5], torch.eye(2)), torch.kron(h[0, :2, :2], torch.eye(2))
