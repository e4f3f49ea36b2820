"""The cache that a decoder is run with, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import DynamicCache

ATTENDING = ("full_attention", "sliding_attention", "chunked_attention", "attention")
"""Types of layers that keep keys and values, and nothing else."""


def new_cache(config: Any, tabled: bool = True) -> DynamicCache:
    """An empty cache for a model of this configuration.

    All keys are kept, beyond a window too, so that patterns are over all of them, unless some layer keeps a state of
    another kind, which the cache must then be told of, or weft has no table for the model.
    """
    from transformers import DynamicCache

    if getattr(config, "model_type", "") == "minimax":  # takes no other than its own
        return _of_minimax()
    kinds = getattr(config, "layer_types", None) or ()
    return DynamicCache() if tabled and all(kind in ATTENDING for kind in kinds) else DynamicCache(config=config)


def _of_minimax() -> DynamicCache:
    """MiniMax's own, which does not say how many positions it holds where its first layer is one without keys."""
    from transformers.models.minimax.modeling_minimax import MiniMaxCache

    class Counted(MiniMaxCache):
        def get_seq_length(self, layer_idx: int = 0) -> int:
            layers: list[Any] = list(self.layers)
            return max((int(layer.get_seq_length()) for layer in layers), default=0)

        def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
            return self.get_seq_length() + query_length, 0

    return Counted()
