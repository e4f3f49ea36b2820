"""Why an operation is not in the table, and what to do instead."""

from __future__ import annotations

from difflib import get_close_matches

from weft.ir.optable import OPS

RANDOM = "it draws from the global random generator: draw before the session from a seeded torch.Generator and use the tensor"
SHAPE = "the shape of what it gives depends on values that are not there yet: use torch.where, topk or a mask instead"
LOOK = "it looks at a value that is not there yet: use torch.where, save it, or call .now() on it"
LAYOUT = "it reads or changes the layout of memory: index or reshape instead"
COMPLEX = "complex numbers are not supported: keep real and imaginary parts apart"
FUSED = "this fused layer has no public operation: write it with its parts, or trace it with grad mode on"

REASONS: dict[str, str] = {
    **dict.fromkeys(
        "bernoulli bernoulli_ normal normal_ uniform uniform_ random random_ exponential_ geometric_ cauchy_ "
        "log_normal_ rand_like randn_like randint_like multinomial poisson native_dropout dropout rrelu rand randn "
        "randint randperm _fused_dropout normal_functional".split(),
        RANDOM,
    ),
    **dict.fromkeys(
        "nonzero masked_select unique_dim _unique2 _unique unique_consecutive bincount nonzero_static histc "
        "repeat_interleave".split(),
        SHAPE,
    ),
    **dict.fromkeys("_local_scalar_dense item equal allclose is_nonzero".split(), LOOK),
    **dict.fromkeys(
        "as_strided as_strided_ set_ resize_ resize_as_ _resize_output_ as_strided_scatter view_as_strided "
        "squeeze_ unsqueeze_ t_ transpose_ detach_ fill_diagonal_".split(),
        LAYOUT,
    ),
    **dict.fromkeys(
        "_fft_r2c _fft_c2c _fft_c2r polar complex view_as_complex view_as_real linalg_eig linalg_eigvals".split(),
        COMPLEX,
    ),
    **dict.fromkeys(
        "mkldnn_rnn_layer _transformer_encoder_layer_fwd _native_multi_head_attention lstm gru "
        "_thnn_fused_lstm_cell".split(),
        FUSED,
    ),
    "view.dtype": "it reads numbers as another dtype's bytes: use .to(dtype)",
    "max_pool2d_with_indices": "places of the maxima are not available",
}


def why_refused(name: str) -> str:
    """The message for an operation that no program may hold."""
    base = name.partition(".")[0]
    if (reason := REASONS.get(name) or REASONS.get(base)) is not None:
        return f"{name} cannot be part of an experiment: {reason}"
    near = get_close_matches(base.strip("_"), OPS, n=3)
    hint = f" (near it: {', '.join(near)})" if near else ""
    return f"{name} is not an operation that weft runs{hint}: write it with others, or compute it from saved values"
