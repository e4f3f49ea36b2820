"""Changes in place, of values and of views of views."""

import torch
import torch.nn.functional as F

from snippets import randn, snippet
from weft.errors import OpError, OutsideWriteError, ShapeError

V = randn(12)
OUTSIDE = torch.zeros(2, 5)
OUTSIDE_LIST = torch.zeros(5, 12)


@snippet
def add_to_a_view(h):
    x = h[:, 0]
    x += 1
    return x


@snippet
def assign_a_place(h):
    h[:, -1] = V


@snippet
def assign_a_number(h):
    h[:, 2, 3:6] = 0


@snippet
def zero_by_method(h):
    h[:, 1].zero_()
    h[0, 0].fill_(3)


@snippet
def add_at_a_place(h):
    h[:, -1] += V
    h[0, 1:3] *= 2


@snippet
def assign_from_other(h, g):
    h[:, -1] = g[:, -1]


@snippet
def assign_own_shift(h):
    h[:, 1:] = h[:, :-1].clone()


@snippet
def swap_rows(h):
    h[0], h[1] = h[1].clone(), h[0].clone()


@snippet
def assign_everything(h, g):
    h[...] = g * 2
    g[:] = 1


@snippet
def view_of_view_of_view(h):
    x = h.view(2, 5, 3, 4)
    y = x[:, :, 1]
    z = y[:, 2:, ::2]
    z += 10
    return y, x.sum()


@snippet
def read_before_and_after(h):
    before = h[:, 0] * 1
    h[:, 0] = 0
    return before, h[:, 0] + 1


@snippet
def a_view_sees_later_changes(h):
    last = h[:, -1]
    h += 1
    return last


@snippet
def the_base_sees_changes_of_a_view(h):
    x = h * 2
    x[:, 0] -= 1
    x.transpose(0, 1)[2, 1] = V
    return x, x.mean(0)


@snippet
def chained_methods(h):
    return h.clone().mul_(2).add_(1).clamp_(-1, 1).sub_(h)


@snippet
def own_value_in_place(h):
    y = h @ h.mT
    y.masked_fill_(torch.ones(5, 5, dtype=torch.bool).triu(1), float("-inf"))
    return y.softmax(-1)


@snippet
def normalise_in_place(h):
    x = h.clone()
    x -= x.mean(-1, keepdim=True)
    x /= x.norm(dim=-1, keepdim=True)
    return x


@snippet
def relu_in_place(h):
    x = h + 0
    F.relu(x, inplace=True)
    return x, torch.relu_(h * 2), F.leaky_relu(h - 1, 0.1, inplace=True)


@snippet
def accumulate_in_a_loop(h):
    total = torch.zeros_like(h[:, 0])
    for i in range(5):
        total += h[:, i]
    return total


@snippet
def running_mean(h):
    m = h[:, 0].clone()
    for i in range(1, 5):
        m.lerp_(h[:, i], 0.5)
    return m


@snippet
def power_and_friends(h):
    x = h.clone()
    x.pow_(2).add_(1e-6).sqrt_()
    x.neg_().exp_().tanh_()
    x.addcmul_(h, h, value=0.5)
    return x


@snippet
def copied(h, g):
    h[:, 1].copy_(g[:, 2])
    x = torch.empty_like(h)
    x.copy_(g)
    return x


@snippet
def copy_with_broadcast_and_cast(h):
    h.copy_(torch.arange(12))
    return h


@snippet
def index_methods(h):
    x = h[0].clone()
    x.index_add_(0, torch.tensor([0, 2]), h[1, :2])
    x.index_fill_(1, torch.tensor([3]), 7.0)
    x.index_copy_(0, torch.tensor([4]), h[1, :1])
    x.scatter_(1, torch.tensor([[0], [1]]), 5.0)
    x.scatter_add_(1, torch.tensor([[0], [1]]), h[1, :2, :1])
    return x


@snippet
def tril_in_place(h):
    x = h[0, :, :5].clone()
    return x.tril_(), h[0].clone().triu_(1)


@snippet
def whole_slice_is_no_new_value(h):
    h[:] += 1
    h.add_(1)


@snippet
def out_of_a_module_in_place(h):
    x = F.layer_norm(h, (12,))
    x[:, 0] = h[:, 0]
    return x


@snippet
def order_between_reads_and_writes(h, g):
    out = (h * g).sum()
    h[:, -1] = 0
    g[:, -1] = 0
    return out, (h * g).sum()


@snippet
def fill_a_grid(h):
    grid = torch.zeros(2, 5)
    for i in range(2):
        for j in range(5):
            grid[i, j] = h[i, j].norm()
    return grid


@snippet
def in_place_on_whole_known_part(h):
    out = torch.zeros(3, 2, 12)
    row = out[1]
    row += h[:, 0]
    out[2] = row * 2
    return out


@snippet(raises=OpError, says="clone")
def in_place_on_an_expanded_view(h):
    x = h[:, :1].expand(2, 5, 12)
    x += 1  # here


@snippet(raises=OpError, says="clone")
def in_place_on_overlapping_windows(h):
    x = h.unfold(1, 3, 1)
    x.mul_(2)  # here


@snippet(raises=ShapeError, says="broadcast")
def a_value_that_does_not_fit(h):
    h[:, 0] = h[:, :3]  # here


@snippet(raises=OutsideWriteError, says="torch.stack")
def write_outside(h):
    OUTSIDE[0, 1] = h[0, 1].norm()  # here


@snippet(raises=OutsideWriteError, says="torch.stack")
def add_outside(h):
    OUTSIDE_LIST.add_(h[0])  # here


@snippet(raises=OutsideWriteError, says="torch.stack")
def copy_outside(h):
    OUTSIDE_LIST[2:4].copy_(h[0, :2])  # here


@snippet(raises=OutsideWriteError, says="torch.stack")
def index_put_outside(h):
    OUTSIDE_LIST[torch.tensor([0, 1])] = h[0, :2]  # here


@snippet(raises=OpError, says="use its result")
def out_argument(h):
    return torch.add(h, 1, out=torch.empty(2, 5, 12))  # here


@snippet(raises=OpError, says="new view")
def transpose_in_place(h):
    h.transpose_(0, 1)  # here


@snippet(raises=OpError, says="new view")
def resize_in_place(h):
    h.resize_(3, 2)  # here


@snippet(raises=OpError, says="x[...]")
def assign_data(h):
    h.data = h * 2  # here


@snippet
def change_data_in_place(h):
    x = h * 1
    x.data.mul_(2)
    x.data[:, 0] = 0
    return x.detach()
