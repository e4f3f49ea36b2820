"""Decoders that have no table because their layers are not of the form that a table describes, and in what they differ."""

from __future__ import annotations

_AFTER = (
    "its norms are of the stream itself, after each sum, so no stream is the one before it and what a sublayer adds; "
    "a table's equations are of streams that are only added to"
)
_CROSS = "it is the second half of an encoder-decoder: between attention and MLP its layers also add cross-attention"
_GEMMA4 = "its layers add to the stream a third time, what embeddings of their own give for each token"
_GEMMA3N = "its layers keep several streams at once, each corrected by what another one's sublayers give (AltUp)"

WITHOUT: dict[str, str] = {
    **dict.fromkeys(
        ("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "openai-gpt", "rembert",
         "roberta", "roc_bert", "roformer", "xlm", "xlm-roberta", "xlnet"), _AFTER,
    ),
    **dict.fromkeys(
        ("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
         "prophetnet", "trocr", "whisper"), _CROSS,
    ),
    **dict.fromkeys(("gemma4", "gemma4_text"), _GEMMA4),
    **dict.fromkeys(("gemma3n", "gemma3n_text"), _GEMMA3N),
    "diffllama": "a head's output is the normed difference of two mixes of values, so no pattern @ v is z",
    "doge": "its layers multiply the stream by gains before they add to it, so a stream is not the one before it and a sum",
    "gpt_neox_japanese": "its last layer adds a bias besides what attention gives, which is the output of no module",
    "modernbert-decoder": "between its last norm and the unembedding lies a layer with an activation, so unembed(final_norm) "
    "is not logits",
    "reformer": "its layers keep two streams, each of which takes what the other's sublayer gives (reversible layers)",
}  # fmt: skip
"""By `model_type`. Types that are neither here nor in a table have none because none was written yet."""
