"""Dense decoders of every family as tiny random models, with what their equations say, written down from the models' own
code and not from weft's tables: activation, norms, multipliers, rotary, what attention adds to its scores."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pytest
import torch
import transformers
from tests.tiny import randomised

from weft.models import Loaded, load

F = torch.nn.functional
TANH = lambda x: F.gelu(x, approximate="tanh")  # noqa: E731
SQUARED = lambda x: torch.relu(x) ** 2  # noqa: E731


@dataclass(frozen=True)
class Kind:
    """One `model_type`: its classes, what of its configuration is not as in COMMON, and its equations."""

    config: str
    model: str
    own: dict[str, object] = field(default_factory=dict)
    single: bool = False  # its own code fails in float64
    eager: bool = False  # has no sdpa attention, or one that does not do all that it should
    act: Callable[[torch.Tensor], torch.Tensor] = F.silu
    gated: bool = True
    norm: str = "rms"  # or "layer"; "+1" where gains count from 1
    eps: str = "rms_norm_eps"
    post: tuple[str, str] = ("", "")  # norms of what attention and MLP give
    qk: str = ""  # "head": a norm of each head's q and k; "flat": of all heads' together; "heads": gains for each head
    before_o: str = ""  # a norm of z
    before_down: str = ""  # and of the neurons
    times: float = 1.0
    logits: float = 1.0
    cap: float = 0.0
    embed: float = 1.0
    learned: bool = False  # position embeddings
    unknown_embed: bool = False  # sines, or a norm: no equation here
    scale: float | None = None  # of scores; else 1/√d_head
    softcap: float = 0.0
    sinks: bool = False
    slopes: tuple[float, ...] = ()  # ALiBi: a bias by the key's position
    rotary: str = "half"  # "pairs": neighbours are turned; "": none
    turned: int = 0  # how many of d_head are; 0: all
    still: tuple[int, ...] = ()  # layers without
    theta: tuple[float, ...] = ()  # by layer; else 10000
    after_rotary: str = ""  # a norm there
    windows: tuple[int, ...] = ()  # layers that see the last 4 positions alone
    parallel: bool = False
    packing: str = ""  # how q, k, v lie in their one projection


COMMON: dict[str, Any] = {
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "hidden_size": 20,
    "intermediate_size": 28, "vocab_size": 50, "max_position_embeddings": 32, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}  # fmt: skip
GROUPED: dict[str, Any] = {"hidden_size": 32, "head_dim": 8}  # heads as wide as the model
ALIKE: dict[str, Any] = {**GROUPED, "num_key_value_heads": 4}  # as many keys as queries
TYPES: dict[str, Any] = {
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
SLIDING = (0, 2)
HALVED: dict[str, Any] = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
}
TWO_THETAS: dict[str, Any] = {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                                  "full_attention": {"rope_type": "default", "rope_theta": 10000.0}}}  # fmt: skip
EVERYWHERE: dict[str, Any] = {"attention_bias": True, "mlp_bias": True}
OLD: dict[str, Any] = {
    "n_layer": 3, "n_head": 4, "n_embd": 32, "n_inner": 28, "n_positions": 32, "vocab_size": 50, "bos_token_id": 0,
    "eos_token_id": 1, "tie_word_embeddings": False,
}  # fmt: skip
FALCON: dict[str, Any] = {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_size": 32,
    "vocab_size": 50,
    "eos_token_id": 1,
}
LAYER: dict[str, Any] = {"gated": False, "norm": "layer"}
PARTIAL: dict[str, Any] = {"rotary": "half", "turned": 4}
FOUR = (2**-2, 2**-4, 2**-6, 2**-8)

KINDS: dict[str, Kind] = {
    "gpt2": Kind("GPT2Config", "GPT2LMHeadModel", OLD, act=TANH, learned=True, rotary="", eps="layer_norm_epsilon",
                 packing="side by side", **LAYER),
    "gpt_bigcode": Kind("GPTBigCodeConfig", "GPTBigCodeForCausalLM", OLD, act=TANH, learned=True, rotary="",
                        eps="layer_norm_epsilon", packing="by group", **LAYER),
    "gpt_bigcode, a key each": Kind("GPTBigCodeConfig", "GPTBigCodeForCausalLM", {**OLD, "multi_query": False}, act=TANH,
                                    learned=True, rotary="", eps="layer_norm_epsilon", packing="by group", **LAYER),
    "gpt_neo": Kind("GPTNeoConfig", "GPTNeoForCausalLM", {
        "num_layers": 3, "num_heads": 4, "hidden_size": 32, "intermediate_size": 28, "vocab_size": 50, "window_size": 4,
        "attention_types": [[["local", "global", "local"], 1]], "max_position_embeddings": 32, "bos_token_id": 0,
        "eos_token_id": 1,
    }, eager=True, act=TANH, learned=True, rotary="", scale=1.0, windows=SLIDING, eps="layer_norm_epsilon", **LAYER),
    "ctrl": Kind("CTRLConfig", "CTRLLMHeadModel", {**OLD, "dff": 28}, act=torch.relu, unknown_embed=True, rotary="",
                 eps="", **LAYER),
    "biogpt": Kind("BioGptConfig", "BioGptForCausalLM", ALIKE, act=F.gelu, learned=True, embed=32**0.5, rotary="",
                   eps="", **LAYER),
    "xglm": Kind("XGLMConfig", "XGLMForCausalLM", {
        "num_layers": 3, "attention_heads": 4, "d_model": 32, "ffn_dim": 28, "vocab_size": 50,
        "max_position_embeddings": 32,
    }, single=True, eager=True, act=F.gelu, unknown_embed=True, rotary="", eps="", **LAYER),
    "opt": Kind("OPTConfig", "OPTForCausalLM", {**ALIKE, "ffn_dim": 28, "word_embed_proj_dim": 32}, act=torch.relu,
                learned=True, rotary="", eps="", **LAYER),
    "gpt_neox": Kind("GPTNeoXConfig", "GPTNeoXForCausalLM", {**ALIKE, **HALVED, "use_parallel_residual": True},
                     act=F.gelu, parallel=True, eps="layer_norm_eps", packing="by group", **LAYER, **PARTIAL),
    "gpt_neox, one after the other": Kind("GPTNeoXConfig", "GPTNeoXForCausalLM", {
        **ALIKE, **HALVED, "use_parallel_residual": False,
    }, act=F.gelu, eps="layer_norm_eps", packing="by group", **LAYER, **PARTIAL),
    "bloom": Kind("BloomConfig", "BloomForCausalLM", {
        "hidden_size": 40, "n_head": 5, "n_layer": 3, "num_attention_heads": 5, "num_hidden_layers": 3, "vocab_size": 50,
        "num_key_value_heads": 5, "head_dim": 8,
    }, eager=True, act=TANH, unknown_embed=True, rotary="", slopes=(*FOUR, 2**-1), eps="layer_norm_epsilon",
        packing="by group", **LAYER),
    "falcon": Kind("FalconConfig", "FalconForCausalLM", {
        **FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True, "ffn_hidden_size": 28,
    }, act=F.gelu, parallel=True, eps="layer_norm_epsilon", packing="by group", **LAYER),
    "falcon, one key": Kind("FalconConfig", "FalconForCausalLM", {
        **FALCON, "multi_query": True, "parallel_attn": True, "bias": True,
        "ffn_hidden_size": 28,
    }, act=F.gelu, parallel=True, eps="layer_norm_epsilon", packing="by group", **LAYER),
    "falcon, alibi": Kind("FalconConfig", "FalconForCausalLM", {
        **FALCON, "multi_query": False, "parallel_attn": False, "alibi": True, "bias": True, "ffn_hidden_size": 28,
    }, act=F.gelu, rotary="", slopes=tuple(each / 8**0.5 for each in FOUR), eps="layer_norm_epsilon",
        packing="by group", **LAYER),
    "mpt": Kind("MptConfig", "MptForCausalLM", {"d_model": 32, "n_heads": 4, "n_layers": 3, "vocab_size": 50,
                                                "max_seq_len": 32}, eager=True, act=F.gelu, rotary="", slopes=FOUR,
                eps="layer_norm_epsilon", packing="side by side", **LAYER),
    "persimmon": Kind("PersimmonConfig", "PersimmonForCausalLM", {**ALIKE, **HALVED, "qk_layernorm": True},
                      act=SQUARED, qk="head", eps="layer_norm_eps", packing="by group", **LAYER, **PARTIAL),
    "gptj": Kind("GPTJConfig", "GPTJForCausalLM", {**OLD, "rotary_dim": 4}, eager=True, act=TANH, rotary="pairs",
                 turned=4, parallel=True, eps="layer_norm_epsilon", **LAYER),
    "codegen": Kind("CodeGenConfig", "CodeGenForCausalLM", {
        **OLD, "rotary_dim": 4, "n_head": 8, "n_embd": 64,
    }, eager=True, act=TANH, rotary="pairs", turned=4, parallel=True, eps="layer_norm_epsilon", packing="in four",
        **LAYER),
    "phi": Kind("PhiConfig", "PhiForCausalLM", {**GROUPED, **HALVED, "qk_layernorm": True}, act=TANH, qk="head",
                parallel=True, eps="layer_norm_eps", **LAYER, **PARTIAL),
    "phi, no norms of q and k": Kind("PhiConfig", "PhiForCausalLM", {**GROUPED, **HALVED}, act=TANH, parallel=True,
                                     eps="layer_norm_eps", **LAYER, **PARTIAL),
    "cohere, no norms of q and k": Kind("CohereConfig", "CohereForCausalLM", {**GROUPED, "logit_scale": 0.3},
                                        norm="layer", rotary="pairs", parallel=True, logits=0.3, eps="layer_norm_eps"),
    "cohere": Kind("CohereConfig", "CohereForCausalLM", {**GROUPED, "use_qk_norm": True, "logit_scale": 0.3},
                   norm="layer", qk="heads", rotary="pairs", parallel=True, logits=0.3, eps="layer_norm_eps"),
    "cohere2": Kind("Cohere2Config", "Cohere2ForCausalLM", {**TYPES, "logit_scale": 0.3}, norm="layer", rotary="pairs",
                    still=(1,), windows=SLIDING, parallel=True, logits=0.3, eps="layer_norm_eps"),
    "stablelm": Kind("StableLmConfig", "StableLmForCausalLM", {
        **GROUPED, **HALVED, "use_qkv_bias": True, "qk_layernorm": True, "use_parallel_residual": True,
    }, norm="layer", qk="each", parallel=True, eps="layer_norm_eps", **PARTIAL),
    "stablelm, one after the other": Kind("StableLmConfig", "StableLmForCausalLM", {**GROUPED, **HALVED}, norm="layer",
                                          eps="layer_norm_eps", **PARTIAL),
    "llama": Kind("LlamaConfig", "LlamaForCausalLM", EVERYWHERE),
    "mistral": Kind("MistralConfig", "MistralForCausalLM", {"sliding_window": 4}, windows=(0, 1, 2)),
    "ministral": Kind("MinistralConfig", "MinistralForCausalLM", TYPES, windows=SLIDING),
    "ministral3": Kind("Ministral3Config", "Ministral3ForCausalLM", {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "llama_4_scaling_beta": 0.5,
                            "original_max_position_embeddings": 3},
    }, after_rotary="llama 4"),
    "qwen2": Kind("Qwen2Config", "Qwen2ForCausalLM", GROUPED),
    "qwen3": Kind("Qwen3Config", "Qwen3ForCausalLM", {"attention_bias": True}, qk="head"),
    "smollm3": Kind("SmolLM3Config", "SmolLM3ForCausalLM", {**EVERYWHERE, "no_rope_layers": [1, 0, 1]}, still=(1,)),
    "seed_oss": Kind("SeedOssConfig", "SeedOssForCausalLM", {"attention_out_bias": True, "mlp_bias": True}),
    "helium": Kind("HeliumConfig", "HeliumForCausalLM", {**GROUPED, **EVERYWHERE}, rotary="pairs"),
    "ernie4_5": Kind("Ernie4_5Config", "Ernie4_5ForCausalLM", {"use_bias": True}, rotary="pairs"),
    "cwm": Kind("CwmConfig", "CwmForCausalLM", {
        **TYPES, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }, windows=SLIDING),
    "hunyuan_v1_dense": Kind("HunYuanDenseV1Config", "HunYuanDenseV1ForCausalLM", {"attention_bias": True},
                             after_rotary="norm"),
    "internlm3": Kind("InternLM3Config", "LlamaForCausalLM", EVERYWHERE),
    "iquestcoder": Kind("IQuestCoderConfig", "LlamaForCausalLM"),
    "emu3_text_model": Kind("Emu3TextConfig", "Emu3ForCausalLM", EVERYWHERE),
    "nanochat": Kind("NanoChatConfig", "NanoChatForCausalLM", {"final_logit_softcapping": 3.0, "attention_bias": True},
                     act=SQUARED, gated=False, unknown_embed=True, rotary="half, back", after_rotary="bare norm", cap=3.0),
    "arcee": Kind("ArceeConfig", "ArceeForCausalLM", EVERYWHERE, act=SQUARED, gated=False),
    "nemotron": Kind("NemotronConfig", "NemotronForCausalLM", {**EVERYWHERE, **GROUPED, **HALVED}, act=SQUARED,
                     gated=False, norm="layer+1", eps="norm_eps", **PARTIAL),
    "jais2": Kind("Jais2Config", "Jais2ForCausalLM", EVERYWHERE, act=SQUARED, eps="layer_norm_eps", **LAYER),
    "starcoder2": Kind("Starcoder2Config", "Starcoder2ForCausalLM", {**GROUPED, "sliding_window": 4}, act=TANH,
                       windows=(0, 1, 2), eps="norm_epsilon", **LAYER),
    "apertus": Kind("ApertusConfig", "ApertusForCausalLM", {
        "attention_bias": True, "hidden_act": "silu", "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }, gated=False, qk="head"),
    "olmo": Kind("OlmoConfig", "OlmoForCausalLM", {**GROUPED, "attention_bias": True}, norm="layer", eps=""),
    "olmo2": Kind("Olmo2Config", "Olmo2ForCausalLM", {**GROUPED, "attention_bias": True}, norm="", qk="flat",
                  post=("post_attention_layernorm", "post_feedforward_layernorm")),
    "olmo3": Kind("Olmo3Config", "Olmo3ForCausalLM", {**GROUPED, **TYPES, **TWO_THETAS}, norm="", qk="flat",
                  windows=SLIDING, theta=(100.0, 10000.0, 100.0),
                  post=("post_attention_layernorm", "post_feedforward_layernorm")),
    "exaone4": Kind("Exaone4Config", "Exaone4ForCausalLM", TYPES, norm="", qk="head", windows=SLIDING, still=(1,),
                    post=("post_attention_layernorm", "post_feedforward_layernorm")),
    "glm": Kind("GlmConfig", "GlmForCausalLM", {**GROUPED, **HALVED, "attention_bias": True}, rotary="pairs", turned=4),
    "glm4": Kind("Glm4Config", "Glm4ForCausalLM", {**GROUPED, **HALVED, "attention_bias": True}, rotary="pairs",
                 turned=4, post=("post_self_attn_layernorm", "post_mlp_layernorm")),
    "phi3": Kind("Phi3Config", "Phi3ForCausalLM", GROUPED),
    "granite": Kind("GraniteConfig", "GraniteForCausalLM", {
        **EVERYWHERE, "residual_multiplier": 0.4, "attention_multiplier": 0.7, "embedding_multiplier": 3.0,
        "logits_scaling": 2.5,
    }, times=0.4, scale=0.7, embed=3.0, logits=1 / 2.5),
    "granite_swa": Kind("GraniteSWAConfig", "GraniteSWAForCausalLM", {
        **TYPES, **EVERYWHERE, "residual_multiplier": 0.4, "attention_multiplier": 0.7, "embedding_multiplier": 3.0,
        "logits_scaling": 2.5, "layer_rope_theta": [100.0, 0, 100.0],
    }, eager=True, times=0.4, scale=0.7, embed=3.0, logits=1 / 2.5, sinks=True, windows=SLIDING, still=(1,),
        theta=(100.0,) * 3),
    "hyperclovax": Kind("HyperCLOVAXConfig", "HyperCLOVAXForCausalLM", {
        **EVERYWHERE, "residual_multiplier": 0.4, "attention_multiplier": 0.7, "embedding_multiplier": 3.0,
        "logits_scaling": 2.5, "use_post_norm": True,
    }, times=0.4, scale=0.7, embed=3.0, logits=2.5, post=("post_norm1", "post_norm2")),
    "hyperclovax, no norms after": Kind("HyperCLOVAXConfig", "HyperCLOVAXForCausalLM", {
        **EVERYWHERE, "residual_multiplier": 0.4, "attention_multiplier": 0.7, "embedding_multiplier": 3.0,
        "logits_scaling": 2.5, "use_post_norm": False,
    }, times=0.4, scale=0.7, embed=3.0, logits=2.5),
    "bitnet": Kind("BitNetConfig", "BitNetForCausalLM", {**GROUPED, "attention_bias": True}, act=SQUARED,
                   before_o="self_attn.attn_sub_norm", before_down="mlp.ffn_sub_norm"),
    "gemma": Kind("GemmaConfig", "GemmaForCausalLM", {"attention_bias": True}, act=TANH, norm="rms+1", embed=20**0.5),
    "gemma2": Kind("Gemma2Config", "Gemma2ForCausalLM", {
        **TYPES, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    }, eager=True, act=TANH, norm="rms+1", embed=20**0.5, scale=7**-0.5, softcap=2.0, cap=3.0, windows=SLIDING,
        post=("post_attention_layernorm", "post_feedforward_layernorm")),
    "gemma3_text": Kind("Gemma3TextConfig", "Gemma3ForCausalLM", {
        **TYPES, **TWO_THETAS, "query_pre_attn_scalar": 7,
    }, act=TANH, norm="rms+1", embed=20**0.5, scale=7**-0.5, qk="head", windows=SLIDING, theta=(100.0, 10000.0, 100.0),
        post=("post_attention_layernorm", "post_feedforward_layernorm")),
    "vaultgemma": Kind("VaultGemmaConfig", "VaultGemmaForCausalLM", {
        **TYPES, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    }, eager=True, act=TANH, norm="rms+1", embed=20**0.5, scale=7**-0.5, softcap=2.0, cap=3.0, windows=SLIDING),
}  # fmt: skip
"""By `model_type`, with a variant after a comma."""
ROWS: dict[str, Kind] = dict(KINDS)
"""Those, and kinds of other files, which are built and looked up here too."""


def ways(kinds: Iterable[str], often: Iterable[str]) -> list[Any]:
    """Kinds with each attention that they have, on prompts of one length and padded, for `pytest.mark.parametrize`.

    Marked slow but for those tried `often` and, of the others, their usual attention on padded prompts.
    """
    found = []
    for name in kinds:
        for attention in ("eager",) if ROWS[name].eager else ("eager", "sdpa"):
            for padded in (False, True):
                usual = padded and (attention == "sdpa" or ROWS[name].eager)
                marks = () if usual or name in often else pytest.mark.slow
                label = f"{name}-{attention}" + ("-padded" if padded else "")
                found.append(pytest.param(name, attention, padded, marks=marks, id=label))
    return found


def build(kind: str, seed: int = 3, attention: str = "", **changes: object) -> torch.nn.Module:
    """A model of that kind with every weight, gain and bias random."""
    row = ROWS[kind]
    attention = attention or ("eager" if row.eager else "sdpa")
    named_otherwise = {"n_layer", "num_layers", "n_layers", "ffn_hidden_size"}
    common = {} if named_otherwise & row.own.keys() else COMMON
    given = copy.deepcopy({**common, **row.own, **changes})  # configurations write into what they are given
    config = getattr(transformers, row.config)(**given, attn_implementation=attention)
    assert config.model_type == kind.split(",")[0]
    return randomised(getattr(transformers, row.model)(config), seed)


@lru_cache(maxsize=4)
def loaded(kind: str, dtype: torch.dtype = torch.float64, attention: str = "") -> Loaded:
    """A model of that kind, built once for the tests that stand beside each other."""
    dtype = torch.float32 if ROWS[kind].single and dtype == torch.float64 else dtype
    return load(build(kind, attention=attention).to(dtype))
