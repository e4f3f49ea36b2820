"""Linear algebra on the model's values and one's own."""

import torch

from snippets import randn, snippet

A = randn(12, 12, seed=16)
SQUARE = torch.eye(5) * 3


@snippet
def singular_values(h):
    return torch.linalg.svdvals(h), torch.linalg.matrix_norm(h, "nuc"), torch.linalg.norm(h[0], 2)


@snippet
def svd_low_rank(h):
    u, s, vh = torch.linalg.svd(h, full_matrices=False)
    return (u[..., :2] * s[..., None, :2]) @ vh[..., :2, :], s


@snippet
def svd_of_own(h):
    u, _, _ = torch.svd(A)
    return h @ u[:, :3] @ u[:, :3].T, h @ torch.linalg.svd(A).Vh


@snippet
def qr(h):
    q, r = torch.linalg.qr(h.mT)
    return q @ r, q.mT @ q


@snippet
def eigh(h):
    s = h.mT @ h + torch.eye(12)
    values = torch.linalg.eigvalsh(s)
    return values, torch.linalg.eigh(s[0] + torch.diag(torch.arange(12.0))).eigenvalues


@snippet
def solve(h):
    m = h @ h.mT + SQUARE
    return torch.linalg.solve(m, h), torch.linalg.inv(m), torch.inverse(m), torch.linalg.det(m)


@snippet
def logdet(h):
    m = h @ h.mT + SQUARE
    return torch.linalg.slogdet(m).logabsdet, torch.logdet(m), torch.linalg.cholesky(m)


@snippet
def pinv(h):
    return torch.linalg.pinv(h), torch.pinverse(h[0])


@snippet
def least_squares_by_hand(h):
    x, y = h.flatten(0, 1)[:, :4], h.flatten(0, 1)[:, 4:6]
    return torch.linalg.solve(x.T @ x + torch.eye(4), x.T @ y)


@snippet
def matrix_functions(h):
    m = h[0, :, :5] / 10
    return (
        torch.matrix_exp(m),
        torch.matrix_power(m, 3),
        torch.trace(m),
        m.trace(),
        torch.linalg.multi_dot([h[0], A, h[1].T]),
    )


@snippet
def triangular(h):
    m = torch.tril(h[0, :, :5]) + SQUARE
    return torch.linalg.solve_triangular(m, h[0], upper=False)


@snippet
def cross_and_angles(h, g):
    return torch.linalg.cross(h[..., :3], g[..., :3]), torch.acos(torch.cosine_similarity(h, g, -1).clamp(-0.99, 0.99))


@snippet
def gram_schmidt(h):
    basis = []
    for v in h[0, :3]:
        w = v - sum((v @ b) * b for b in basis) if basis else v
        basis.append(w / w.norm())
    return torch.stack(basis)


@snippet
def principal_component(h):
    x = h.flatten(0, 1) - h.flatten(0, 1).mean(0)
    values = torch.linalg.svd(x, full_matrices=False).S
    return values**2 / (values**2).sum()


@snippet
def power_iteration(h):
    v = torch.ones(12)
    for _ in range(3):
        v = h[0].T @ (h[0] @ v)
        v = v / v.norm()
    return v
