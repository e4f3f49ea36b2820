"""One's own tensors, changed before, between and after their use."""

import numpy as np
import torch

from snippets import snippet
from weft.errors import TraceError


def own(*shape, seed):
    """A tensor that no factory function of torch made, and that nothing else shares."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)).clone()


@snippet
def changed_after_use(h):
    v = own(12, seed=20)
    out = h * v
    v += 100
    v.zero_()
    return out


@snippet
def changed_between_uses(h):
    v = own(12, seed=21)
    a = h * v
    v *= 2
    b = h * v
    return a, b


@snippet
def a_view_of_own(h):
    m = own(5, 12, seed=22)
    row = m[1]
    a = h * row
    m[1] = 0
    return a, h * row, h @ m.T


@snippet(gradient=None)
def memory_shared_with_numpy(h):
    a = np.ones(12, dtype=np.float32)
    t = torch.from_numpy(a)
    out = h * t
    a[:] = 5
    return out, h * t


@snippet(gradient=None)
def changed_through_numpy_view(h):
    t = own(12, seed=23)
    before = h * t
    t.numpy()[0] = 50
    return before, h * t


@snippet(gradient=None)
def changed_through_data(h):
    t = own(12, seed=24)
    before = h * t
    t.data[0] = 50
    return before, h * t


@snippet
def swept_scalar_buffer(h):
    alpha, outs = own(seed=28), []
    for i in range(3):
        alpha.fill_(float(i))
        outs.append(h * alpha)
    return torch.stack(outs)


@snippet
def transposed_and_strided_own(h):
    m = own(24, 12, seed=25)
    return h @ m.T, h @ m[::2], h * m[0, ::1], h @ m.T[:, ::3].contiguous(), h * own(1, seed=26).expand(12)


@snippet
def in_a_list_that_changes(h):
    parts = [own(12, seed=i) for i in range(3)]
    stacked = torch.stack([*parts, h[0, 0]])
    parts[0].zero_()
    return stacked


@snippet
def own_index_changed_after_use(h):
    index = torch.from_numpy(np.array([0, 1]))
    a = h[:, index]
    index += 1
    return a, h[:, index]


@snippet
def own_mask_changed_after_use(h):
    mask = torch.from_numpy(np.zeros(5, dtype=bool))
    mask[1] = True
    a = h[:, mask]
    mask[2] = True
    return a, h[:, mask]


@snippet
def large_and_unchanged(h):
    big = own(12, 30000, seed=29)
    return (h @ big)[..., :3]


BIG = torch.ones(12, 30000)
BIG_NUMPY = np.ones((12, 30000), dtype=np.float32)


@snippet(raises=TraceError, says=".clone()")
def large_and_changed(h):
    out = (h @ BIG)[..., :3]  # here
    BIG[0] = 2
    return out


@snippet(raises=TraceError, says=".clone()")
def large_and_changed_through_numpy(h):
    out = (h @ torch.from_numpy(BIG_NUMPY))[..., :3]  # here
    BIG_NUMPY[0] = 2
    return out


@snippet
def parameter_changed_after_use(h):
    w = torch.nn.Parameter(own(12, 3, seed=27))
    out = h @ w.detach()
    with torch.no_grad():
        w.mul_(2)
    return out


@snippet
def freed_and_made_anew(h):
    outs = []
    for i in range(4):
        outs.append(h * own(12, seed=i))  # each may lie where the last one lay
    return torch.stack(outs)
