"""torch.nn.functional and the arithmetic of everyday."""

import math

import torch
import torch.nn.functional as F

from snippets import randn, snippet

T = randn(2, 5, 12, seed=5)
U = randn(12, 17, seed=6)


@snippet
def activations(h):
    return F.relu(h), F.gelu(h), F.gelu(h, approximate="tanh"), F.silu(h), F.softplus(h), F.elu(h), F.mish(h)


@snippet
def more_activations(h):
    return (
        F.hardtanh(h),
        F.relu6(h),
        F.leaky_relu(h),
        F.glu(h),
        F.logsigmoid(h),
        F.selu(h),
        F.tanhshrink(h),
        F.softsign(h),
    )


@snippet
def softmaxes(h):
    return (
        h.softmax(-1),
        F.log_softmax(h, 1),
        torch.logsumexp(h, -1),
        F.softmin(h, 0),
        h.softmax(-1, dtype=torch.float64),
    )


@snippet
def arithmetic(h, g):
    return h + g, h - 2 * g, h * g / 3, h**2, 2**h, -h, 1 - h, 1 / (h + 10), h % 2, h.detach() // 0.5, abs(h), +h


@snippet
def alpha_and_friends(h, g):
    return torch.add(h, g, alpha=2), torch.sub(h, 1, alpha=3), torch.addcmul(h, g, g, value=2), torch.lerp(h, g, 0.3)


@snippet
def with_own_tensors(h):
    return T + h, h * T, T @ h.mT, T - h[:, :1], torch.dot(T[0, 0], h[0, 0])


@snippet
def elementwise(h):
    return (
        h.exp(),
        h.abs().log(),
        h.sin(),
        h.cos(),
        h.tanh(),
        h.sigmoid(),
        h.erf(),
        h.square(),
        h.abs().sqrt(),
        h.sign(),
    )


@snippet
def rounding(h):
    return (
        h.round(),
        h.floor(),
        h.ceil(),
        h.trunc(),
        h.frac(),
        torch.round(h, decimals=2),
        h.clamp(-1, 1),
        h.clip(min=0),
    )


@snippet
def reductions(h):
    return h.sum(), h.mean(1), h.sum((0, 1)), h.mean(-1, keepdim=True), h.prod(-1), h.amax(1), h.amin((0, 2))


@snippet
def spread(h):
    return (
        h.std(),
        h.var(-1),
        h.std(1, unbiased=False),
        torch.var_mean(h, -1),
        torch.std_mean(h, 0)[1],
        h.var(-1, correction=0),
    )


@snippet
def norms(h):
    return (
        h.norm(),
        h.norm(dim=-1),
        h.norm(1, dim=1),
        torch.linalg.vector_norm(h, float("inf"), -1),
        h.norm(p=2, dim=(1, 2)),
    )


@snippet
def extremes(h):
    values, places = h.max(-1)
    return values, places, h.max(), h.min(0)[1], h.argmax(), h.argmin(1), torch.aminmax(h, dim=-1), h.median(-1).values


@snippet
def products(h, g):
    return (
        h @ g.mT,
        torch.matmul(h[0], g[0].T),
        torch.bmm(h, g.mT),
        h[0, 0] @ g[0, 0],
        torch.outer(h[0, 0], g[0, 0]),
        h[0].mv(g[0, 0]),
    )


@snippet
def contractions(h, g):
    return torch.einsum("bpd,bqd->bpq", h, g), torch.tensordot(h, g, dims=([2], [2])), torch.einsum("bpd,dv->bpv", h, U)


@snippet
def addmm(h):
    return torch.addmm(T[0, :, :5], h[0], h[1].T), torch.baddbmm(T[:, :, :5], h, h.mT, beta=0.5, alpha=2)


@snippet
def similarity(h, g):
    return F.cosine_similarity(h, g, dim=-1), F.pairwise_distance(h, g), torch.cdist(h, g), torch.dist(h, g)


@snippet
def losses(h, g):
    return (
        F.mse_loss(h, g),
        F.l1_loss(h, g),
        F.smooth_l1_loss(h, g),
        F.huber_loss(h, g),
        F.mse_loss(h, g, reduction="none"),
    )


@snippet
def cross_entropy(h):
    logits = h @ U
    target = torch.arange(10).view(2, 5)
    return F.cross_entropy(logits.flatten(0, 1), target.flatten()), F.cross_entropy(
        logits.transpose(1, 2), target, reduction="none"
    )


@snippet
def divergences(h, g):
    p, q = h.softmax(-1), g.log_softmax(-1)
    return (
        F.kl_div(q, p, reduction="batchmean"),
        (p * (p.log() - q)).sum(-1),
        F.nll_loss(q[0], torch.tensor([0, 1, 2, 3, 4])),
    )


@snippet
def binary_losses(h):
    y = (T > 0).float()
    return (
        F.binary_cross_entropy_with_logits(h, y),
        F.binary_cross_entropy(h.sigmoid(), y),
        -F.logsigmoid(h * (2 * y - 1)).mean(),
    )


@snippet
def entropy(h):
    p = h.softmax(-1)
    return -(p * p.log()).sum(-1), torch.special.entr(p), torch.special.xlogy(p, p).sum(-1)


@snippet
def cumulative(h):
    return (
        h.cumsum(1),
        h.softmax(-1).cumprod(-1),
        torch.cummax(h, 1).values,
        torch.logcumsumexp(h, -1),
        torch.diff(h, dim=1),
    )


@snippet
def padding(h):
    return F.pad(h, (0, 0, 1, 0)), F.pad(h, (1, 2), value=3.0), F.pad(h, (1, 1), mode="reflect")


@snippet
def joining(h, g):
    return (
        torch.cat([h, g], -1),
        torch.stack([h, g]),
        torch.cat((h, T), 1),
        torch.stack([T, h], -1),
        torch.vstack([h[0], g[1]]),
    )


@snippet
def triangles(h):
    s = h @ h.mT
    return s.tril(), s.triu(1), torch.tril(s, -1), s.diagonal(dim1=-2, dim2=-1), torch.diag_embed(h[0])


@snippet
def complete_logit_lens(h):
    x = (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return (x @ U).log_softmax(-1)[..., 3]


@snippet
def rotary(h):
    x = h.view(2, 5, 3, 4)
    angle = torch.arange(5)[:, None] / (10000 ** (torch.arange(0, 4, 2) / 4))
    cos, sin = torch.cat([angle, angle], -1).cos()[:, None], torch.cat([angle, angle], -1).sin()[:, None]
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


@snippet
def erf_gelu_by_hand(h):
    return 0.5 * h * (1 + torch.erf(h / math.sqrt(2))), h * torch.sigmoid(1.702 * h)


@snippet
def whitening(h):
    x = h.flatten(0, 1)
    x = x - x.mean(0)
    return torch.cov(x.T), x.T @ x / 9, torch.corrcoef(x[:, :3].T)


@snippet
def projection_away(h):
    d = U[:, 0] / U[:, 0].norm()
    return h - (h @ d)[..., None] * d


@snippet
def trapezoid_and_histories(h):
    return torch.trapezoid(h, dim=1), h.nansum(-1), torch.nan_to_num(h / 0), torch.count_nonzero(h > 0, dim=1)
