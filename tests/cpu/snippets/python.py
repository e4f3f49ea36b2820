"""Python around traced values: looking, printing, copying, iterating."""

import copy
import io
import pickle  # noqa: TID251 (that it is refused)

import numpy as np
import torch

from snippets import snippet
from weft.errors import NoValueError

ONE = torch.ones(12)


@snippet
def unpacking(h):
    (a, b), *rest = h[:, :2].unbind(1), 1
    first, *others = h.unbind(1)
    return a + b, first, len(others), rest


@snippet
def iteration(h):
    return [row.sum() for row in h], [x.norm() for x in h[0]], list(enumerate(h))[1][1]


@snippet
def zipping(h, g):
    return [a - b for a, b in zip(h, g, strict=True)], dict(zip("ab", h, strict=True))["b"], list(reversed(h.unbind(0)))


@snippet
def python_sum(h):
    return sum(h), sum(x.mean() for x in h.unbind(1)) / 5


@snippet
def type_checks(h):
    return (
        isinstance(h, torch.Tensor),
        torch.is_tensor(h),
        callable(h.sum),
        hasattr(h, "shape"),
        type(h.shape) is torch.Size,
    )


@snippet
def used_as_key(h):
    seen = {h: 1}
    return seen[h], id(h) == id(h)


@snippet
def shallow_copy(h):
    box = {"h": h}
    return dict(box)["h"], [h, 1][0], (h,)[0] is h


@snippet
def ordinary_code_beside(h):
    lengths = torch.tensor([3, 2])
    n = int(lengths.max())
    k = lengths.tolist()
    m = lengths.numpy()
    return h[:, :n], h[:, k[0]], h[:, int(m[1])], f"{lengths.sum().item():d}"


@snippet
def numpy_arrays_beside(h):
    a = np.arange(12, dtype=np.float32)
    return h * torch.from_numpy(a), h + torch.as_tensor(a), h @ torch.tensor(a)


@snippet
def numpy_numbers(h):
    return h * np.float32(2), h + np.float64(1.5), h[:, np.int64(2)], h / np.sqrt(12.0), h * np.pi


@snippet
def conditional_on_shape(h):
    return h.mean(1) if h.dim() == 3 else h, h if h.shape[-1] == 12 else h * 2


@snippet
def assertion_on_shape(h):
    assert h.shape == (2, 5, 12)
    assert h.size() == torch.Size([2, 5, 12]), h
    return h * 1


@snippet
def look_at_a_known_value(h):
    grid = torch.zeros(3)
    grid[1] = 2
    if grid.sum() > 1:
        return h * grid[1], grid.sum().item(), grid.tolist(), f"{grid[1]:.1f}"
    return h


@snippet(raises=NoValueError, says="torch.where")
def condition(h):
    if h.mean() > 0:  # here
        return h
    return -h


@snippet(raises=NoValueError, says=".now()")
def item(h):
    return h.sum().item()  # here


@snippet(raises=NoValueError, says=".save()")
def to_numpy(h):
    return h.numpy()  # here


@snippet(raises=NoValueError, says=".save()")
def detach_cpu_numpy(h):
    return h.detach().cpu().numpy()  # here


@snippet(raises=NoValueError, says=".save()")
def as_array(h):
    return np.asarray(h)  # here


@snippet(raises=NoValueError, says=".save()")
def numpy_function(h):
    return np.exp(h)  # here


@snippet(raises=NoValueError, says=".save()")
def to_list(h):
    return h.tolist()  # here


@snippet(raises=NoValueError, says=".save()")
def to_float(h):
    return float(h.sum())  # here


@snippet(raises=NoValueError, says=".save()")
def to_int(h):
    return int(h.argmax())  # here


@snippet(raises=NoValueError, says=".save()")
def as_index(h):
    return ["a", "b"][h.argmax()]  # here


@snippet(raises=NoValueError, says="torch.where")
def and_or(h):
    return h.sum() > 0 and h  # here


@snippet(raises=NoValueError, says="torch.where")
def python_max(h):
    return max(h.mean(-1)[0])  # here


@snippet(raises=NoValueError, says=".save()")
def contains(h):
    return 3.0 in h  # here


@snippet(raises=NoValueError, says=".save()")
def deep_copy(h):
    return copy.deepcopy(h)  # here


@snippet(raises=NoValueError, says=".save()")
def pickled(h):
    return pickle.dumps(h)  # here


@snippet(raises=NoValueError, says=".save()")
def torch_save(h):
    torch.save(h, io.BytesIO())  # here  # noqa: TID251


@snippet(raises=NoValueError, says=".save()")
def from_dlpack(h):
    return np.from_dlpack(h)  # here


@snippet(raises=NoValueError, says=".save()")
def into_numpy_array(h):
    np.zeros(3)[0] = h[0, 0, 0]  # here


@snippet(raises=NoValueError, says=".save()")
def data_pointer(h):
    return h.data_ptr()  # here


@snippet(raises=NoValueError, says=".save()")
def formatted_number(h):
    return f"{h.mean():.3f}"  # here


@snippet(raises=NoValueError, says="torch.where")
def all_close(h, g):
    return torch.allclose(h, g)  # here


@snippet(raises=NoValueError, says="torch.where")
def equal(h, g):
    return torch.equal(h, g)  # here


@snippet(raises=NoValueError, says=".save()")
def tensor_of_traced(h):
    return torch.tensor([h[0, 0, 0], h[0, 0, 1]])  # here


@snippet(raises=NoValueError, says=".save()")
def range_of_traced(h):
    return list(range(h.argmax()))  # here


@snippet(raises=NoValueError, says=".save()")
def slice_by_traced(h):
    return h[:, : h[0, 0].argmax()]  # here


@snippet(raises=NoValueError, says=".save()")
def number_of_repeats(h):
    return ONE.repeat(h.argmax())  # here
