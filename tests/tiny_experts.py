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
    "flex_olmo": ("FlexOlmoConfig", "FlexOlmoForCausalLM", {**_FEW, "head_dim": 4, "pad_token_id": 0}),
}  # fmt: skip
