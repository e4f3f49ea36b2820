"""Decoders with experts as tiny random models, with their equations but those of routing and experts (`naive_experts`)."""

from __future__ import annotations

from typing import Any

from family_zoo import GROUPED, HALVED, PARTIAL, ROWS, SLIDING, TWO_THETAS, TYPES, Kind

_LOOP: dict[str, Any] = {"experts_implementation": "eager"}
_FEW: dict[str, Any] = {**_LOOP, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_LOCAL: dict[str, Any] = {**_LOOP, "num_local_experts": 5, "num_experts_per_tok": 2}
_ROUTED: dict[str, Any] = {
    **_LOOP, "n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 12, "n_group": 2, "topk_group": 1,
    "routed_scaling_factor": 1.7, "norm_topk_prob": True, "first_k_dense_replace": 1, "n_shared_experts": 2,
}  # fmt: skip
_MULTIPLIED: dict[str, Any] = {
    **GROUPED, "embedding_multiplier": 3.0, "logits_scaling": 2.5, "residual_multiplier": 0.4, "attention_multiplier": 0.7,
    "attention_bias": True,
}  # fmt: skip
_GRANITE: dict[str, Any] = {"times": 0.4, "scale": 0.7, "embed": 3.0, "logits": 1 / 2.5}
_POST = ("post_attention_layernorm", "post_feedforward_layernorm")

EXPERTS: dict[str, Kind] = {
    "mixtral": Kind("MixtralConfig", "MixtralForCausalLM", {**_LOCAL, "sliding_window": 4}, windows=(0, 1, 2)),
    "qwen2_moe": Kind("Qwen2MoeConfig", "Qwen2MoeForCausalLM", {
        **_FEW, **GROUPED, "shared_expert_intermediate_size": 10, "mlp_only_layers": [0],
    }),
    "qwen3_moe": Kind("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {
        **_FEW, "attention_bias": True, "mlp_only_layers": [2], "norm_topk_prob": True,
    }, qk="head"),
    "olmoe": Kind("OlmoeConfig", "OlmoeForCausalLM", {**_FEW, **GROUPED, "attention_bias": True}, qk="flat"),
    "phimoe": Kind("PhimoeConfig", "PhimoeForCausalLM", {
        **_LOCAL, **GROUPED, "attention_bias": True, "lm_head_bias": True,
        "router_jitter_noise": 1.5,  # with less every weight is 1
    }, norm="layer"),
    "granitemoe": Kind("GraniteMoeConfig", "GraniteMoeForCausalLM", {**_LOCAL, **_MULTIPLIED}, **_GRANITE),
    "granitemoeshared": Kind("GraniteMoeSharedConfig", "GraniteMoeSharedForCausalLM", {
        **_LOCAL, **_MULTIPLIED, "shared_intermediate_size": 14,
    }, **_GRANITE),
    "gpt_oss": Kind("GptOssConfig", "GptOssForCausalLM", {
        **_LOCAL, **TYPES, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    }, eager=True, sinks=True, windows=SLIDING, theta=(100.0,) * 3),
    "ernie4_5_moe": Kind("Ernie4_5_MoeConfig", "Ernie4_5_MoeForCausalLM", {
        **_LOOP, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 12, "use_bias": True, "moe_layer_start_index": 1,
    }, rotary="pairs"),
    "glm4_moe": Kind("Glm4MoeConfig", "Glm4MoeForCausalLM", {
        **_ROUTED, **GROUPED, **HALVED, "use_qk_norm": True, "attention_bias": True,
    }, qk="head", **PARTIAL),
    "hunyuan_v1_moe": Kind("HunYuanMoEV1Config", "HunYuanMoEV1ForCausalLM", {
        **_LOOP, "num_experts": 5, "moe_topk": 2, "attention_bias": True,
    }, after_rotary="norm"),
    "dots1": Kind("Dots1Config", "Dots1ForCausalLM", {**_ROUTED, **TYPES, "attention_bias": True}, qk="head",
                  windows=SLIDING),
    "solar_open": Kind("SolarOpenConfig", "SolarOpenForCausalLM", {**_ROUTED, "attention_bias": True}),
    "mellum": Kind("MellumConfig", "MellumForCausalLM", {
        **_FEW, **TYPES, **TWO_THETAS, "attention_bias": True, "mlp_layer_types": ["sparse", "sparse", "dense"],
    }, qk="head", windows=SLIDING, theta=(100.0, 10000.0, 100.0)),
    "exaone_moe": Kind("ExaoneMoeConfig", "ExaoneMoeForCausalLM", {
        **_ROUTED, **TYPES, "num_experts": 6, "num_shared_experts": 2, "mlp_layer_types": ["dense", "sparse", "sparse"],
    }, qk="head", windows=SLIDING, still=(1,)),
    "minimax_m2": Kind("MiniMaxM2Config", "MiniMaxM2ForCausalLM", _LOCAL, qk="flat"),
    "flex_olmo": Kind("FlexOlmoConfig", "FlexOlmoForCausalLM", {**_FEW, **GROUPED, "attention_bias": True}, norm="",
                      qk="flat", post=_POST),
    "llama4_text": Kind("Llama4TextConfig", "Llama4ForCausalLM", {
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size_mlp": 18, "interleave_moe_layer_step": 2,
        "no_rope_layers": [1, 0, 1], "attention_chunk_size": 4, "attention_bias": True, "floor_scale": 2, "attn_scale": 0.5,
        "layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
    }, rotary="pairs", still=(1,)),
}  # fmt: skip
"""Those whose every layer has attention of queries, keys and values, each of which passes a module."""
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4, "head_dim": 4, "q_lora_rank": 9, "kv_lora_rank": 10, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4, "v_head_dim": 7,
}  # fmt: skip
_LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_key_head_dim": 4, "linear_value_head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
OTHERS: dict[str, Kind] = {
    "deepseek_v2": Kind("DeepseekV2Config", "DeepseekV2ForCausalLM", {
        **_ROUTED, **_LATENT, "topk_method": "group_limited_greedy",
    }, rotary="pairs"),
    "deepseek_v3": Kind("DeepseekV3Config", "DeepseekV3ForCausalLM", {**_ROUTED, **_LATENT}, rotary="pairs"),
    "deepseek_v3, queries of no latent": Kind("DeepseekV3Config", "DeepseekV3ForCausalLM", {
        **_ROUTED, **_LATENT, "q_lora_rank": None, "rope_interleave": False,
    }),
    "glm4_moe_lite": Kind("Glm4MoeLiteConfig", "Glm4MoeLiteForCausalLM", {
        **_ROUTED, **_LATENT, "mlp_layer_types": ["dense", "sparse", "sparse"],
    }, rotary="pairs"),
    "afmoe": Kind("AfmoeConfig", "AfmoeForCausalLM", {
        **_FEW, **TYPES, "num_dense_layers": 1, "route_scale": 1.7, "mup_enabled": True, "num_shared_experts": 1,
        "attention_bias": True,
    }, qk="head", windows=SLIDING, still=(1,), embed=20**0.5, post=("post_attention_layernorm", "post_mlp_layernorm")),
    "qwen3_5_moe_text": Kind("Qwen3_5MoeTextConfig", "Qwen3_5MoeForCausalLM", {
        **_FEW, **GROUPED, **_LINEAR, "shared_expert_intermediate_size": 10,
    }, norm="rms+1"),
    "qwen3_next": Kind("Qwen3NextConfig", "Qwen3NextForCausalLM", {
        **_FEW, **GROUPED, **_LINEAR, "mlp_only_layers": [2], "shared_expert_intermediate_size": 10,
    }, norm="rms+1"),
    "lfm2_moe": Kind("Lfm2MoeConfig", "Lfm2MoeForCausalLM", {
        **_FEW, **GROUPED, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1,
    }, eps="norm_eps"),
}  # fmt: skip
"""Those in which it is otherwise: in some layers or for some of queries, keys, values and their mixes."""
NOT_ADDED: dict[str, Kind] = {
    "minimax": Kind("MiniMaxConfig", "MiniMaxForCausalLM", {
        **_LOCAL, **GROUPED, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "block_size": 4,
        "full_attn_alpha_factor": 1.3, "full_attn_beta_factor": 0.6, "linear_attn_alpha_factor": 0.8,
        "linear_attn_beta_factor": 1.4, "mlp_alpha_factor": 0.9, "mlp_beta_factor": 1.2,
    }),
}  # fmt: skip
"""One whose stream goes on as a norm's output."""
ROWS.update({**EXPERTS, **OTHERS, **NOT_ADDED})
