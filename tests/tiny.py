"""Tiny models with every weight, gain and bias random: default initialisation hides misplaced norms and biases."""

from __future__ import annotations

import torch
from torch import nn

_SIZES = {
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "hidden_size": 16,
    "intermediate_size": 22, "vocab_size": 19, "max_position_embeddings": 24, "tie_word_embeddings": False,
    "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter drawn anew; gains around 1, the rest around 0 and large enough to matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            gain = parameter.dim() == 1 and name.endswith("weight")
            scale = 0.3 if gain else 1.0 / max(parameter.shape[0], 1) ** 0.5 if parameter.dim() > 1 else 0.5
            parameter.copy_(noise * scale + (1.0 if gain else 0.0))
        for name, each in module.named_buffers():
            if name.endswith(("correction_bias", "expert_bias")):  # has its say in which experts are chosen
                each.copy_(torch.randn(each.shape, generator=generator))
    return module.eval()


def tiny_gpt2(seed: int = 0, attention: str = "sdpa", **changes: object) -> nn.Module:
    """GPT-2 with 2 layers, 3 heads of 4, 17 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_layer": 2, "n_head": 3, "n_embd": 12, "n_inner": 20, "vocab_size": 17, "n_positions": 24}
    config = GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **changes}, attn_implementation=attention)
    return randomised(GPT2LMHeadModel(config), seed)


def tiny_mistral(seed: int = 0, attention: str = "sdpa", **changes: object) -> nn.Module:
    """As tiny_llama, as a Mistral that attends to the last 4 positions only."""
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(**{**_SIZES, "sliding_window": 4, **changes}, attn_implementation=attention)
    return randomised(MistralForCausalLM(config), seed)


def tiny_qwen2(seed: int = 0, attention: str = "sdpa", **changes: object) -> nn.Module:
    """As tiny_llama, as a Qwen2: heads as wide as the model is, biases in q, k, v alone."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**{**_SIZES, "head_dim": 4, **changes}, attn_implementation=attention)
    return randomised(Qwen2ForCausalLM(config), seed)


def tiny_llama(seed: int = 0, attention: str = "sdpa", **changes: object) -> nn.Module:
    """Llama with 3 layers, 4 heads of 6 over 2 kv heads (so 4 · 6 is not d_model), biases everywhere, 19 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{**_SIZES, "attention_bias": True, "mlp_bias": True, **changes}, attn_implementation=attention
    )
    return randomised(LlamaForCausalLM(config), seed)


def tiny(kind: str, seed: int = 0, attention: str = "", **changes: object) -> nn.Module:
    """A tiny model of that `model_type`, all random: sizes as tiny_llama's, with what the family adds made small."""
    import transformers

    config_class, module_class, own = KINDS[kind]
    attention = attention or attention_of(kind)
    config = getattr(transformers, config_class)(**{**_SIZES, **own, **changes}, attn_implementation=attention)
    return randomised(getattr(transformers, module_class)(config), seed)


def attention_of(kind: str) -> str:
    """The attention that a family has by default: those that sdpa cannot do have eager."""
    return "eager" if kind in ("gemma2", "gpt_oss", "bloom") else "sdpa"


_WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
_NO_GROUPS = {"num_key_value_heads": 4, "head_dim": 4}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "eager"}
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    "olmo2": ("Olmo2Config", "Olmo2ForCausalLM", {"head_dim": 4}),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", {
        **_WINDOWS, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
    }),
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", {**_WINDOWS, "query_pre_attn_scalar": 7}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", {"head_dim": 4, "pad_token_id": 0}),
    "gpt_oss": ("GptOssConfig", "GptOssForCausalLM", {
        **_WINDOWS, **_EXPERTS, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    }),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", _EXPERTS),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM", {"pad_token_id": 0, "no_rope_layers": [1, 1, 0]}),
    "seed_oss": ("SeedOssConfig", "SeedOssForCausalLM", {}),
    "olmo3": ("Olmo3Config", "Olmo3ForCausalLM", {**_WINDOWS, "head_dim": 4}),
    "exaone4": ("Exaone4Config", "Exaone4ForCausalLM", _WINDOWS),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", {}),
    "arcee": ("ArceeConfig", "ArceeForCausalLM", {}),
    "starcoder2": ("Starcoder2Config", "Starcoder2ForCausalLM", {"head_dim": 4}),
    "qwen3_moe": ("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12, "experts_implementation": "eager",
    }),
    "olmoe": ("OlmoeConfig", "OlmoeForCausalLM", {
        "num_experts": 4, "num_experts_per_tok": 2, "experts_implementation": "eager", "head_dim": 4,
    }),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", {**_NO_GROUPS, "use_parallel_residual": True}),
    "bloom": ("BloomConfig", "BloomForCausalLM", {
        "hidden_size": 20, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 4,
    }),
}  # fmt: skip
