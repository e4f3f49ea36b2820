"""Configurations of tiny models with experts: `model_type` → (configuration, model, what it adds to tiny_llama's sizes)."""

from __future__ import annotations

_LOOP = {"experts_implementation": "eager"}
_FEW = {**_LOOP, "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_LOCAL = {**_LOOP, "num_local_experts": 5, "num_experts_per_tok": 2}
_ROUTED = {
    **_LOOP, "n_routed_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 12, "n_group": 2, "topk_group": 1,
    "routed_scaling_factor": 1.7, "norm_topk_prob": True, "first_k_dense_replace": 1, "n_shared_experts": 2,
}  # fmt: skip
_MULTIPLIED = {
    "embedding_multiplier": 1.3, "logits_scaling": 0.7, "residual_multiplier": 0.6, "attention_multiplier": 0.3, "head_dim": 4,
}  # fmt: skip
_LATENT = {
    "num_key_value_heads": 4, "head_dim": 4, "q_lora_rank": 9, "kv_lora_rank": 10, "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4, "v_head_dim": 7,
}  # fmt: skip

KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "phimoe": ("PhimoeConfig", "PhimoeForCausalLM", {
        **_LOCAL, "attention_bias": True, "lm_head_bias": True, "router_jitter_noise": 1.5,  # less makes every weight 1
    }),
    "qwen2_moe": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM", {
        **_FEW, "shared_expert_intermediate_size": 10, "mlp_only_layers": [0], "head_dim": 4,
    }),
    "granitemoe": ("GraniteMoeConfig", "GraniteMoeForCausalLM", {**_LOCAL, **_MULTIPLIED}),
    "ernie4_5_moe": ("Ernie4_5_MoeConfig", "Ernie4_5_MoeForCausalLM", {
        **_LOOP, "moe_num_experts": 5, "moe_k": 2, "moe_intermediate_size": 12, "use_bias": True, "moe_layer_start_index": 1,
    }),
    "glm4_moe": ("Glm4MoeConfig", "Glm4MoeForCausalLM", {
        **_ROUTED, "use_qk_norm": True, "attention_bias": True, "head_dim": 8,
    }),
    "hunyuan_v1_moe": ("HunYuanMoEV1Config", "HunYuanMoEV1ForCausalLM", {**_LOOP, "num_experts": 5, "moe_topk": 2}),
    "dots1": ("Dots1Config", "Dots1ForCausalLM", {
        **_ROUTED, "sliding_window": 4, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    }),
    "granitemoeshared": ("GraniteMoeSharedConfig", "GraniteMoeSharedForCausalLM", {
        **_LOCAL, **_MULTIPLIED, "shared_intermediate_size": 14,
    }),
    "deepseek_v2": ("DeepseekV2Config", "DeepseekV2ForCausalLM", {
        **_ROUTED, **_LATENT, "topk_method": "group_limited_greedy",
    }),
    "deepseek_v3": ("DeepseekV3Config", "DeepseekV3ForCausalLM", {**_ROUTED, **_LATENT}),
    "qwen3_next": ("Qwen3NextConfig", "Qwen3NextForCausalLM", {
        **_FEW, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "head_dim": 8,
        "linear_key_head_dim": 4, "linear_value_head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "mlp_only_layers": [2], "shared_expert_intermediate_size": 10,
    }),
    "lfm2_moe": ("Lfm2MoeConfig", "Lfm2MoeForCausalLM", {
        **_FEW, "layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1, "head_dim": 4,
    }),
    "llama4_text": ("Llama4TextConfig", "Llama4ForCausalLM", {
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size_mlp": 18, "interleave_moe_layer_step": 2,
        "no_rope_layers": [1, 1, 0], "attention_chunk_size": 4, "attention_bias": True, "floor_scale": 2,
        "layer_types": ["chunked_attention", "chunked_attention", "full_attention"],
    }),
    "flex_olmo": ("FlexOlmoConfig", "FlexOlmoForCausalLM", {**_FEW, "head_dim": 4, "pad_token_id": 0}),
}  # fmt: skip
