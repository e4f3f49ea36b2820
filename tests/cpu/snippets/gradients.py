"""What carries gradients, and what stops them."""

import torch
import torch.nn.functional as F

from snippets import randn, snippet
from weft.errors import GradientError

W = randn(12, 12, seed=10).requires_grad_()
B = randn(12, seed=11).requires_grad_()
MASK = torch.zeros(12).requires_grad_()
SCALE = torch.tensor(2.0, requires_grad=True)
HARMLESS = randn(12, seed=12)


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x * factor

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


@snippet
def linear_leaf(h):
    return h @ W + B


@snippet
def straight_through(h):
    q = (h * 4).round() / 4
    return h + (q - h).detach()


@snippet
def straight_through_sign(h):
    hard = (h > 0).float()
    soft = h.sigmoid()
    return hard - soft.detach() + soft


@snippet
def detached(h):
    return h.detach() * h, (h * W.detach()[0]).sum()


@snippet
def detach_by_no_grad_of_own(h):
    with torch.no_grad():
        direction = HARMLESS / HARMLESS.norm()
    return h @ direction


@snippet
def mask_training(h, g):
    m = torch.sigmoid(MASK)
    return m * h + (1 - m) * g


@snippet
def leaf_written_into_a_site(h):
    h[:, -1] = B
    h[:, 0] += B * SCALE


@snippet
def leaf_through_views_and_in_place(h):
    y = h * 1
    y[:, 1:3] *= SCALE
    y.view(-1)[::2] = 0
    return y


@snippet
def subspace_swap(h, g):
    q, _ = torch.linalg.qr(W[:, :3])
    return h + (g - h) @ q @ q.T


@snippet
def penalty(h):
    return h.abs().sum() + W.norm() ** 2, F.mse_loss(h @ W, h)


@snippet
def scalar_leaf(h):
    return h * SCALE, SCALE * 2 + h.mean()


@snippet
def leaf_in_a_list(h):
    return torch.stack([h[0, 0], B, W[0]]), torch.cat([h[0], W])


@snippet
def where_and_clamp(h):
    return torch.where(h > 0, h * B, B), h.clamp(-0.5, 0.5), F.relu(h), h.max(-1).values


@snippet
def gumbel_with_own_noise(h):
    noise = -torch.log(-torch.log(torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(3))))
    soft = ((h + noise) / 0.5).softmax(-1)
    hard = F.one_hot(soft.argmax(-1), 12).float()
    return (hard - soft).detach() + soft


@snippet
def leaf_indexed(h):
    return h[:, [0, 1]] * W[[2, 3]], W[h.argmax(-1)] * h, B[None].expand(5, 12) * h[0]


@snippet(gradient=False)
def computed_under_no_grad(h):
    with torch.no_grad():
        y = h * 2
    return y + h


@snippet
def detached_under_no_grad(h):
    with torch.no_grad():
        y = (h * 2).detach()
    return y + h


@snippet(gradient=False)
def custom_function(h):
    return Straight.apply(h), Scaled.apply(h, 3.0)


@snippet
def enable_grad_inside_no_grad(h):
    with torch.no_grad(), torch.enable_grad():
        return h * B


@snippet
def inference_mode_of_own(h):
    with torch.inference_mode():
        k = HARMLESS * 2
    return h * k


@snippet
def checkpoint_like_function(h):
    def block(x):
        return F.gelu(x @ W) @ W.T

    return block(block(h))


@snippet(raises=GradientError, says="weft.grad")
def requires_grad_on_a_site(h):
    h.requires_grad_()  # here


@snippet(raises=GradientError, says="weft.grad")
def grad_of_a_site(h):
    return h.grad  # here


@snippet(raises=GradientError, says="weft.grad")
def retain_grad(h):
    h.retain_grad()  # here


@snippet(raises=GradientError, says="weft.grad")
def hook_on_a_value(h):
    h.register_hook(lambda grad: grad * 2)  # here


@snippet(raises=GradientError, says="sum or average")
def backward_of_many(h):
    (h * B).backward()  # here


@snippet(gradient=False)
def view_under_no_grad(h):
    with torch.no_grad():
        y = h[:, 0]
    return y * 2 + h[:, 1]


@snippet(gradient=False)
def written_under_no_grad(h):
    y = h * 1
    with torch.no_grad():
        y[:, 0] = 0
    return y


@snippet
def places_found_under_no_grad(h):
    with torch.no_grad():
        best = (h * 2).argmax(-1)
        mask = h[:, :1] > 0
    return W[best] * h, torch.where(mask, h, B)


@snippet(gradient=False)
def leaf_written_under_no_grad(h):
    with torch.no_grad():
        h[:, 0] = B


@snippet
def vmap_with_a_leaf(h):
    return torch.vmap(lambda x: x @ W + B)(h)


@snippet
def branches_detached(h):
    mean = h.mean(-1, keepdim=True).detach()
    return (h - mean) / h.std(-1, keepdim=True).detach(), torch.detach(h) * B
