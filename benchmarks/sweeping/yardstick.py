"""How near a run is to what its own matrix products allow.

The products of weft's run are seen as they are dispatched, so the count owes nothing to what the plan says of itself.
Each shape is then run alone, as often as it takes to be timed well; the sum is the time that the run's products would
take if nothing came between them.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sweeping.rivals import weft_session
from sweeping.tasks import TASKS, Data, small

aten = torch.ops.aten
MATRIX = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
FUSED = {aten._scaled_dot_product_flash_attention_for_cpu.default, aten._scaled_dot_product_flash_attention.default,
         aten._scaled_dot_product_efficient_attention.default}  # fmt: skip
Sort = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


class Products(TorchDispatchMode):
    """Counts matrix products by operation, sizes and strides."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[Any, Sort, torch.dtype]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MATRIX:
            tensors = args[MATRIX[func] : MATRIX[func] + 2]
            self.seen[func, _sort(tensors), tensors[0].dtype] += 1
        elif func in FUSED:
            self.seen[func, _sort(args[:3]), args[0].dtype] += 1
        elif func._can_decompose() if hasattr(func, "_can_decompose") else False:
            with self:  # linear, matmul and their like reach here whole in inference mode
                found = func.decompose(*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return func(*args, **(kwargs or {}))


def _sort(tensors: Any) -> Sort:
    return tuple((tuple(each.shape), tuple(each.stride())) for each in tensors)


def flops(func: Any, sort: Sort) -> float:
    """Multiply and add are two."""
    (first, _), (second, _) = sort[:2]
    if func in FUSED:
        return 4.0 * first[0] * first[1] * first[2] * second[2] * first[3]
    many = first[0] if len(first) == 3 else 1
    return 2.0 * many * first[-2] * first[-1] * second[-1]


def measure(task: str, model: str, quick: bool, plan: str) -> dict[str, float]:
    """GFLOP dispatched by weft's run of a task, and the seconds that they take at their shapes' own rates."""
    data = TASKS[task].data(model, quick)
    handle = weft_session.setup(model)
    weft_session.PLAN = plan
    function = getattr(weft_session, TASKS[task].calls)
    function(handle, small(data))  # checks made on first use are not the run's
    seen = _dispatched(function, handle, data)
    total = sum(flops(func, sort) * count for (func, sort, _), count in seen.items())
    seconds = sum(_rate(*key) * count for key, count in seen.items())
    return {"gflop": total / 1e9, "seconds": seconds, "products": float(sum(seen.values())), "shapes": float(len(seen))}


def _dispatched(function: Any, handle: Any, data: Data) -> Counter[tuple[Any, Sort, torch.dtype]]:
    """The products of the execution alone: tracing works on tensors without data, so it dispatches none of them."""
    products = Products()
    backend = handle.backend
    run = backend.run

    def watched(*args: Any, **kwargs: Any) -> Any:
        with products:
            return run(*args, **kwargs)

    backend.run = watched
    try:
        function(handle, data)
    finally:
        del backend.run
    return products.seen


def _rate(func: Any, sort: Sort, dtype: torch.dtype) -> float:
    """Seconds of one such product, the best of several."""
    tensors = [_filled(size, stride, dtype) for size, stride in sort]
    if MATRIX.get(func):
        tensors.insert(0, torch.zeros(sort[1][0][-1], dtype=dtype))
    best, spent, rounds = float("inf"), 0.0, 0
    with torch.inference_mode():
        func(*tensors)
        while rounds < 3 or (spent < 0.05 and rounds < 50):
            started = time.perf_counter()
            func(*tensors)
            taken = time.perf_counter() - started
            best, spent, rounds = min(best, taken), spent + taken, rounds + 1
    return best


def _filled(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    room = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if 0 not in size else 0
    return torch.randn(max(room, 1)).to(dtype).as_strided(size, stride)
