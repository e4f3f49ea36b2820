"""Reading and writing at places that tensors name, and putting tensors together.

Every operand that holds places has an Index beside it: the values are checked before the op runs.
"""

from __future__ import annotations

from functools import partial

from weft.errors import DtypeError, OpError, ShapeError
from weft.ir.optable.promote import need_same, result_type
from weft.ir.optable.rows import POINTWISE, TRACED, Leading, rule
from weft.ir.optable.shapes import broadcast, fits, need_dims, need_sizes, one_of, with_length, without, wrap, wrap_all
from weft.ir.optable.spec import Index, op
from weft.ir.optable.viewing import diagonal_length, place, slice_bounds
from weft.ir.types import TensorType

Ints = tuple[int, ...]
Number = bool | int | float


def _need_long(name: str, *operands: TensorType) -> None:
    for each in operands:
        if each.dtype not in ("int64", "int32"):
            raise DtypeError(f"{name}: places must be int64, were {each}; convert with .long()")


def _need_int64(name: str, operand: TensorType) -> None:
    if operand.dtype != "int64":
        raise DtypeError(f"{name}: places must be int64, were {operand}; convert with .long()")


def indexed(shape: Ints, indices: tuple[TensorType | None, ...]) -> Ints:
    """The shape of `x[indices]`: indexed dimensions become one block, in place if adjacent, else in front."""
    if len(indices) > len(shape):
        raise ShapeError(f"{len(indices)} indices for a tensor of {len(shape)} dimensions")
    given = [(at, index) for at, index in enumerate(indices) if index is not None]
    if not given:
        return shape
    for _, index in given:
        if index.dtype not in ("int64", "int32", "int16", "int8", "uint8", "bool"):
            raise DtypeError(f"indices must be integers, were {index}; convert with .long()")
        if index.dtype in ("uint8", "bool"):
            raise OpError(f"a mask as an index gives a shape that depends on its values ({index}); use torch.where")
        if index.dtype not in ("int64", "int32"):
            raise DtypeError(f"indices must be int64, were {index}; convert with .long()")
    block = broadcast(*(index.shape for _, index in given))
    places = [at for at, _ in given]
    if any(shape[at] == 0 for at in places) and 0 not in block:
        raise ShapeError(f"an index into a dimension of {list(shape)} that is empty")
    rest = tuple(length for at, length in enumerate(shape) if at not in places)
    adjacent = places[-1] - places[0] + 1 == len(places)
    lead = places[0] if adjacent else 0
    return rest[:lead] + block + rest[lead:]


def _index(x: TensorType, indices: tuple[TensorType | None, ...]) -> TensorType:
    if all(index is None for index in indices):
        raise OpError("index needs at least one index tensor")
    return TensorType(x.dtype, indexed(x.shape, indices))


def _index_put(
    x: TensorType, indices: tuple[TensorType | None, ...], values: TensorType, accumulate: bool
) -> TensorType:
    if values.dtype != x.dtype:
        raise DtypeError(f"index_put: the values {values} must have the dtype of {x}; convert with .to({x.dtype})")
    fits(values.shape, _index(x, indices).shape, "index_put: the values")
    return x


def _flat_index(name: str, x: TensorType, index: TensorType) -> None:
    if len(index.shape) > 1:
        raise ShapeError(f"{name}: the index must have at most one dimension, was {index}")
    _need_long(name, index)


def _index_select(x: TensorType, dim: int, index: TensorType) -> TensorType:
    _flat_index("index_select", x, index)
    at = wrap(dim, len(x.shape))
    if not x.shape:
        if index.numel != 1:
            raise ShapeError(f"index_select: {x} has one value, was asked for {index.numel}")
        return x
    return TensorType(x.dtype, with_length(x.shape, at, index.numel))


def _index_write(
    name: str, x: TensorType, dim: int, index: TensorType, source: TensorType, *rest: object
) -> TensorType:
    _flat_index(name, x, index)
    need_same(name, x, source)
    at = wrap(dim, len(x.shape))
    expected = with_length(x.shape, at, index.numel) if x.shape else ()
    if source.shape != expected or (not x.shape and index.numel != 1):
        raise ShapeError(f"{name}: the source must have shape {list(expected)}, was {source}")
    if name == "index_copy":
        _need_int64(name, index)
        if index.shape == () and x.shape:
            raise ShapeError("index_copy: the index must have one dimension")
    return x


def _index_reduce(
    x: TensorType, dim: int, index: TensorType, source: TensorType, way: str, include: bool
) -> TensorType:
    one_of("index_reduce", "reduce", way, "prod", "mean", "amax", "amin")
    return _index_write("index_reduce", x, dim, index, source)


def _index_fill(x: TensorType, dim: int, index: TensorType, value: object) -> TensorType:
    _flat_index("index_fill", x, index)
    _need_int64("index_fill", index)
    wrap(dim, len(x.shape))
    if isinstance(value, TensorType) and value.shape:
        raise ShapeError(f"index_fill: the value must have no dimensions, was {value}")
    return x


def _along(name: str, x: TensorType, dim: int, index: TensorType, source: TensorType | None = None) -> None:
    """Checks shared by gather and scatter: the index is nowhere longer than what it points into, but along `dim`."""
    _need_int64(name, index)
    at = wrap(dim, len(x.shape))
    if index.numel == 0:
        return
    ndim = max(len(x.shape), 1)
    for other in (index, *([source] if source is not None else [])):
        if max(len(other.shape), 1) != ndim:
            raise ShapeError(f"{name}: {other} must have as many dimensions as {x}")
    for each in range(len(x.shape)):
        length = index.shape[each] if index.shape else 1
        if each != at and length > x.shape[each]:
            raise ShapeError(f"{name}: the index {index} is longer than {x} in dimension {each}")
        if source is not None and source.shape and length > source.shape[each]:
            raise ShapeError(f"{name}: the index {index} is longer than the source {source} in dimension {each}")


def _gather(x: TensorType, dim: int, index: TensorType) -> TensorType:
    _along("gather", x, dim, index)
    return TensorType(x.dtype, index.shape)


def _scatter(x: TensorType, dim: int, index: TensorType, source: TensorType) -> TensorType:
    _along("scatter", x, dim, index, source)
    need_same("scatter", x, source)
    return x


def _scatter_value(x: TensorType, dim: int, index: TensorType, value: Number) -> TensorType:
    _along("scatter", x, dim, index)
    return x


def _scatter_reduce(
    x: TensorType, dim: int, index: TensorType, source: TensorType, way: str, include: bool
) -> TensorType:
    one_of("scatter_reduce", "reduce", way, "sum", "prod", "mean", "amax", "amin")
    return _scatter(x, dim, index, source)


def _scatter_old(x: TensorType, dim: int, index: TensorType, source: TensorType, way: str) -> TensorType:
    one_of("scatter", "reduce", way, "add", "multiply")
    return _scatter(x, dim, index, source)


def _scatter_old_value(x: TensorType, dim: int, index: TensorType, value: Number, way: str) -> TensorType:
    one_of("scatter", "reduce", way, "add", "multiply")
    return _scatter_value(x, dim, index, value)


def _masked_fill(x: TensorType, mask: TensorType, value: TensorType | Number) -> TensorType:
    if mask.dtype != "bool":
        raise DtypeError(f"masked_fill needs a bool mask, was given {mask}")
    if isinstance(value, TensorType) and value.shape:
        raise ShapeError(f"masked_fill: the value must have no dimensions, was {value}")
    category = value.category if isinstance(value, TensorType) else type(value).__name__
    if {"bool": 0, "int": 1, "float": 2}[category] > {"bool": 0, "int": 1, "float": 2}[x.category]:
        raise DtypeError(f"masked_fill: the value {value} does not fit into {x}")
    return TensorType(x.dtype, broadcast(x.shape, mask.shape))


def _take(x: TensorType, index: TensorType) -> TensorType:
    _need_int64("take", index)
    if x.numel == 0 and index.numel:
        raise ShapeError(f"take: {x} holds nothing to take")
    return TensorType(x.dtype, index.shape)


def _take_along_dim(x: TensorType, index: TensorType, dim: int | None) -> TensorType:
    _need_int64("take_along_dim", index)
    if dim is None:
        return TensorType(x.dtype, (index.numel,))
    if len(x.shape) != len(index.shape):
        raise ShapeError(f"take_along_dim: {x} and {index} must have equally many dimensions")
    at = wrap(dim, len(x.shape))
    if not x.shape:
        return x
    shared = broadcast(without(x.shape, at), without(index.shape, at))
    return TensorType(x.dtype, shared[:at] + (index.shape[at],) + shared[at:])


def _put(x: TensorType, index: TensorType, source: TensorType, accumulate: bool) -> TensorType:
    _need_int64("put", index)
    need_same("put", x, source)
    if index.numel != source.numel:
        raise ShapeError(f"put: {index} and {source} must hold equally many")
    if x.numel == 0 and index.numel:
        raise ShapeError(f"put: {x} has no place to put anything")
    return x


def _embedding(weight: TensorType, indices: TensorType, padding: int, by_freq: bool, sparse: bool) -> TensorType:
    if sparse or by_freq:
        raise OpError("embedding: sparse gradients and gradients scaled by frequency are not supported")
    need_dims("embedding", weight, 2, name="weight")
    _need_long("embedding", indices)
    return TensorType(weight.dtype, indices.shape + weight.shape[1:])


def _one_hot(x: TensorType, classes: int) -> TensorType:
    _need_int64("one_hot", x)
    if classes <= 0:
        raise OpError("one_hot needs num_classes: without it the shape depends on the values")
    return TensorType("int64", x.shape + (classes,))


def _bucketize(x: TensorType, boundaries: TensorType, int32: bool, right: bool) -> TensorType:
    need_dims("bucketize", boundaries, 1, name="boundaries")
    need_same("bucketize", x, boundaries)
    if boundaries.dtype == "bool":
        raise DtypeError("bucketize is not defined for bools")
    return TensorType("int32" if int32 else "int64", x.shape)


def _searchsorted(
    sequence: TensorType, x: TensorType, int32: bool, right: bool, side: str | None, sorter: TensorType | None
) -> TensorType:
    one_of("searchsorted", "side", side, None, "left", "right")
    if side == "left" and right:
        raise OpError("searchsorted: side='left' and right=True contradict one another")
    need_same("searchsorted", sequence, x)
    if x.dtype == "bool" or not sequence.shape:
        raise DtypeError(f"searchsorted works on sorted numbers, was given {sequence}")
    if sorter is not None and (sorter.shape != sequence.shape or sorter.dtype != "int64"):
        raise ShapeError(f"searchsorted: sorter must be int64 of shape {list(sequence.shape)}, was {sorter}")
    if len(sequence.shape) > 1 and sequence.shape[:-1] != x.shape[:-1]:
        raise ShapeError(f"searchsorted: {sequence} and {x} must agree but in the last dimension")
    if not sequence.numel and x.numel and len(sequence.shape) > 1:
        raise ShapeError(f"searchsorted: {sequence} is empty")
    return TensorType("int32" if int32 else "int64", x.shape)


def _isin(elements: TensorType, test: TensorType | Number, *rest: object) -> TensorType:
    for each in (elements, test):
        if isinstance(each, TensorType) and each.dtype in ("bool", "bfloat16", "float16"):
            raise DtypeError(f"isin is not defined for {each}")
    return TensorType("bool", elements.shape)


def _cat(given: tuple[TensorType, ...], dim: int) -> TensorType:
    if not given:
        raise OpError("cat needs at least one tensor")
    # A tensor of shape [0] fits anything: PyTorch keeps this for old programs.
    real = [each for each in given if each.shape != (0,)] or [given[0]]
    if any(not each.shape for each in given):
        raise ShapeError("cat joins along a dimension, and tensors without dimensions have none; use stack")
    first = real[0]
    at = wrap(dim, len(first.shape))
    for each in real[1:]:
        if len(each.shape) != len(first.shape) or without(each.shape, at) != without(first.shape, at):
            raise ShapeError(f"cat along dimension {at}: {first} and {each} differ elsewhere")
    length = sum(each.shape[at] for each in real)
    return TensorType(result_type(*given), with_length(first.shape, at, length))


def _stack(given: tuple[TensorType, ...], dim: int) -> TensorType:
    if not given:
        raise OpError("stack needs at least one tensor")
    first = given[0]
    for each in given[1:]:
        if each.shape != first.shape:
            raise ShapeError(f"stack: {first} and {each} must have one shape")
    at = wrap(dim, len(first.shape) + 1)
    return TensorType(result_type(*given), first.shape[:at] + (len(given),) + first.shape[at:])


def _repeat(x: TensorType, repeats: Ints) -> TensorType:
    need_sizes("repeat", repeats)
    lead = len(repeats) - len(x.shape)
    if lead < 0:
        raise ShapeError(f"repeat: {list(repeats)} must name every dimension of {x}")
    old = (1,) * lead + x.shape
    return TensorType(x.dtype, tuple(n * times for n, times in zip(old, repeats, strict=True)))


def _tile(x: TensorType, dims: Ints) -> TensorType:
    return _repeat(x, (1,) * (len(x.shape) - len(dims)) + dims)


def _repeat_interleave(x: TensorType, repeats: int, dim: int | None, size: int | None) -> TensorType:
    if repeats < 0:
        raise ShapeError(f"repeat_interleave: repeats cannot be negative, was {repeats}")
    shape = x.shape if dim is not None else (x.numel,)
    at = wrap(dim, len(shape)) if dim is not None else 0
    out = with_length(shape or (1,), at, (shape or (1,))[at] * repeats)
    if size is not None and size != out[at]:
        raise ShapeError(f"repeat_interleave: output_size must be {out[at]}, was {size}")
    return TensorType(x.dtype, out)


def _triangle(x: TensorType, diagonal: int) -> TensorType:
    if len(x.shape) < 2:
        raise ShapeError(f"tril and triu need matrices, were given {x}")
    return x


def _diag_embed(x: TensorType, offset: int, dim1: int, dim2: int) -> TensorType:
    if not x.shape:
        raise ShapeError("diag_embed needs at least one dimension")
    ndim = len(x.shape) + 1
    a, b = wrap(dim1, ndim), wrap(dim2, ndim)
    if a == b:
        raise ShapeError("diag_embed: dim1 and dim2 are the same")
    side, rest = x.shape[-1] + abs(offset), iter(x.shape[:-1])
    return TensorType(x.dtype, tuple(side if at in (a, b) else next(rest) for at in range(ndim)))


def _select_scatter(x: TensorType, source: TensorType, dim: int, index: int) -> TensorType:
    at = place(x, dim)
    if not -x.shape[at] <= index < x.shape[at]:
        raise ShapeError(f"select_scatter: index {index} is out of range for dimension {at} of {x}")
    return _part(x, source, without(x.shape, at))


def _slice_scatter(
    x: TensorType, source: TensorType, dim: int, start: int | None, end: int | None, step: int
) -> TensorType:
    at = place(x, dim)
    return _part(x, source, with_length(x.shape, at, slice_bounds(x.shape[at], start, end, step)[1]))


def _diagonal_scatter(x: TensorType, source: TensorType, offset: int, dim1: int, dim2: int) -> TensorType:
    a, b = wrap(dim1, len(x.shape)), wrap(dim2, len(x.shape))
    if a == b or len(x.shape) < 2:
        raise ShapeError(f"diagonal_scatter: dim1 and dim2 are the same dimension of {x}")
    rest = tuple(length for at, length in enumerate(x.shape) if at not in (a, b))
    return _part(x, source, rest + (diagonal_length(x.shape[a], x.shape[b], offset),))


def _part(x: TensorType, source: TensorType, expected: Ints) -> TensorType:
    if source.shape != expected:
        raise ShapeError(f"the part to be written has shape {list(expected)}, but the source is {source}")
    return x


def _rot90(x: TensorType, k: int, dims: Ints) -> TensorType:
    if len(dims) != 2 or len(x.shape) < 2:
        raise ShapeError(f"rot90 turns in two dimensions, was given {list(dims)} for {x}")
    a, b = wrap_all(dims, len(x.shape))
    shape = list(x.shape)
    if k % 2:
        shape[a], shape[b] = shape[b], shape[a]
    return TensorType(x.dtype, tuple(shape))


def _block_diag(given: tuple[TensorType, ...]) -> TensorType:
    if not given:
        raise OpError("block_diag needs at least one tensor")
    rows = columns = 0
    for each in given:
        need_dims("block_diag", each, 0, 1, 2)
        m, n = ((1, 1) + each.shape)[-2:] if len(each.shape) != 1 else (1, each.shape[0])
        rows, columns = rows + m, columns + n
    return TensorType(result_type(*given), (rows, columns))


def _meshgrid(given: tuple[TensorType, ...], indexing: str = "ij") -> tuple[TensorType, ...]:
    one_of("meshgrid", "indexing", indexing, "ij", "xy")
    need_same("meshgrid", *given)
    if not given or any(len(each.shape) > 1 for each in given):
        raise ShapeError("meshgrid needs tensors of at most one dimension")
    shape = [each.numel for each in given]
    if indexing == "xy" and len(shape) > 1:
        shape[0], shape[1] = shape[1], shape[0]
    return tuple(TensorType(each.dtype, tuple(shape)) for each in given)


LIST = (Index("indices", dim="position", negative=True),)
HERE = (Index("index"),)
op("index.Tensor", "tensor self, tensors? indices", _index, index=LIST, rows=rule("index"))
op("index_put", "tensor self, tensors? indices, tensor values, bool accumulate=False", _index_put, index=LIST,
   rows=rule("index_put"))  # fmt: skip
op("index_select", "tensor self, int dim, tensor index", _index_select, index=HERE, rows=rule("index_select"))
_signature = "tensor self, int dim, tensor index, tensor source"
op("index_add", f"{_signature}, number alpha=1", partial(_index_write, "index_add"), index=HERE)
op("index_copy", _signature, partial(_index_write, "index_copy"), index=HERE)
op("index_reduce", f"{_signature}, str reduce, bool include_self=True", _index_reduce, index=HERE)
WRAPPED = (Index("index", negative=True),)
op("index_fill.int_Scalar", "tensor self, int dim, tensor index, number value", _index_fill, index=WRAPPED)
op("index_fill.int_Tensor", "tensor self, int dim, tensor index, tensor value", _index_fill, index=WRAPPED)
op("gather", "tensor self, int dim, tensor index", _gather, index=HERE, rows=rule("gather"))
_signature = "tensor self, int dim, tensor index, tensor src"
op("scatter.src", _signature, _scatter, index=HERE)
op("scatter.value", "tensor self, int dim, tensor index, number value", _scatter_value, index=HERE)
op("scatter.reduce", f"{_signature}, str reduce", _scatter_old, index=HERE)
_value_signature = "tensor self, int dim, tensor index, number value, str reduce"
op("scatter.value_reduce", _value_signature, _scatter_old_value, index=HERE)
op("scatter_add", _signature, _scatter, index=HERE)
op("scatter_reduce.two", f"{_signature}, str reduce, bool include_self=True", _scatter_reduce, index=HERE)
op("masked_fill.Scalar", "tensor self, tensor mask, number value", _masked_fill, rows=POINTWISE)
op("masked_fill.Tensor", "tensor self, tensor mask, tensor value", _masked_fill, rows=POINTWISE)
op("take", "tensor self, tensor index", _take, index=(Index("index", dim="flat", negative=True),))
op(
    "take_along_dim",
    "tensor self, tensor indices, int? dim=None",
    _take_along_dim,
    index=(Index("indices", negative=True),),
    rows=rule("gather"),
)
op("put", "tensor self, tensor index, tensor source, bool accumulate=False", _put,
   index=(Index("index", dim="flat", negative=True),))  # fmt: skip
_signature = "tensor weight, tensor indices, int padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False"
op("embedding", _signature, _embedding, index=(Index("indices", "weight", 0),), rows=rule("embedding"))
op("one_hot", "tensor self, int num_classes", _one_hot, index=(Index("self", size="num_classes"),), rows=Leading(0))
_signature = "bool out_int32=False, bool right=False"
op("bucketize.Tensor", f"tensor self, tensor boundaries, {_signature}", _bucketize, rows=Leading(0, 1))
op("searchsorted.Tensor", f"tensor sorted_sequence, tensor self, {_signature}, str? side=None, tensor? sorter=None",
   _searchsorted, index=(Index("sorter", "sorted_sequence", -1),))  # fmt: skip
_signature = "bool assume_unique=False, bool invert=False"
op("isin.Tensor_Tensor", f"tensor elements, tensor test_elements, {_signature}", _isin)
op("isin.Tensor_Scalar", f"tensor elements, number test_element, {_signature}", _isin, rows=POINTWISE)
op("cat", "tensors tensors, int dim=0", _cat, rows=rule("joined"))
op("stack", "tensors tensors, int dim=0", _stack, rows=rule("joined"))
op("repeat", "tensor self, ints repeats", _repeat, rows=TRACED)
op("tile", "tensor self, ints dims", _tile, rows=TRACED)
_signature = "tensor self, int repeats, int? dim=None, int? output_size=None"
op("repeat_interleave.self_int", _signature, _repeat_interleave, rows=TRACED)
op("tril", "tensor self, int diagonal=0", _triangle, rows=Leading(2))
op("triu", "tensor self, int diagonal=0", _triangle, rows=Leading(2))
op("diag_embed", "tensor self, int offset=0, int dim1=-2, int dim2=-1", _diag_embed, rows=TRACED)
op("rot90", "tensor self, int k=1, ints dims=(0, 1)", _rot90)
op("block_diag", "tensors tensors", _block_diag)
op("select_scatter", "tensor self, tensor src, int dim, int index", _select_scatter)
_signature = "tensor self, tensor src, int dim=0, int? start=None, int? end=None, int step=1"
op("slice_scatter", _signature, _slice_scatter)
op("diagonal_scatter", "tensor self, tensor src, int offset=0, int dim1=0, int dim2=1", _diagonal_scatter)
op("meshgrid.indexing", "tensors tensors, str indexing", _meshgrid, outputs=None, alias="view")
