"""Tiny random models of other kinds than decoders, what they are given, and modules of theirs to read and to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers as hf
from tests.tiny import randomised
from torch import nn

IDS = torch.tensor([[3, 1, 4, 1, 5], [6, 5, 3, 5, 8]])
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
TEXT: Any = {
    "vocab_size": 23, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20,
}  # fmt: skip
SIGHT: Any = {**{name: TEXT[name] for name in TEXT if name != "vocab_size"}, "image_size": 8, "patch_size": 4}
SIDES: Any = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 20))
}


class Kind(NamedTuple):
    """`build()` makes the module; `inputs` are its own; `write` is the path of a module whose output is changed."""

    build: Callable[[], nn.Module]
    inputs: dict[str, torch.Tensor]
    write: str


def llava() -> nn.Module:
    seen, read = hf.CLIPVisionConfig(**SIGHT), hf.LlamaConfig(**TEXT, num_key_value_heads=2)
    config = hf.LlavaConfig(vision_config=seen, text_config=read, image_token_index=22, vision_feature_layer=-1)
    return hf.LlavaForConditionalGeneration(config)


def qwen2_vl() -> nn.Module:
    turned = {"rope_type": "default", "mrope_section": [1, 1], "rope_theta": 100.0}
    sight = {
        "depth": 2, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2,
        "temporal_patch_size": 1,
    }  # fmt: skip
    text = {**TEXT, "num_key_value_heads": 2, "rope_parameters": turned}
    marks = {"image_token_id": 22, "vision_start_token_id": 20, "vision_end_token_id": 19}
    return hf.Qwen2VLForConditionalGeneration(hf.Qwen2VLConfig(text_config=text, vision_config=sight, **marks))  # type: ignore[arg-type]


def clip() -> nn.Module:
    text = {**TEXT, "max_position_embeddings": 8, "eos_token_id": 2, "bos_token_id": 1}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=SIGHT, projection_dim=8))


def distilbert() -> nn.Module:
    sizes: Any = {"vocab_size": 23, "dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 20}
    return hf.DistilBertForMaskedLM(hf.DistilBertConfig(**sizes))


def t5() -> nn.Module:
    sizes: Any = {"vocab_size": 23, "d_model": 16, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 4}
    return hf.T5ForConditionalGeneration(hf.T5Config(**sizes))


def bart() -> nn.Module:
    config = hf.BartConfig(vocab_size=23, d_model=16, max_position_embeddings=16, **SIDES)
    return hf.BartForConditionalGeneration(config)


TOKENS = {"input_ids": IDS}
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3].flip(0)}
SEEN = {"pixel_values": IMAGES}
IMAGE_AND_TEXT = {"input_ids": torch.tensor([[3, 22, 22, 22, 22, 5], [22, 22, 22, 22, 1, 2]]), **SEEN}
PATCHES = {
    "input_ids": torch.tensor([[3, 20, 22, 19, 5]]),
    "mm_token_type_ids": torch.tensor([[0, 0, 1, 0, 0]]),
    "pixel_values": IMAGES.flatten()[: 4 * 48].view(4, 48),
    "image_grid_thw": torch.tensor([[1, 2, 2]]),
}
KINDS = {
    "bert": Kind(lambda: hf.BertForMaskedLM(hf.BertConfig(**TEXT)), TOKENS, "bert.encoder.layer.0"),
    "roberta": Kind(
        lambda: hf.RobertaForMaskedLM(hf.RobertaConfig(**TEXT, max_position_embeddings=16)),
        TOKENS,
        "roberta.encoder.layer.0.attention.self.value",
    ),
    "distilbert": Kind(distilbert, TOKENS, "distilbert.transformer.layer.0.attention.q_lin"),
    "modernbert": Kind(
        lambda: hf.ModernBertForMaskedLM(hf.ModernBertConfig(**TEXT, pad_token_id=0)), TOKENS, "model.layers.0.mlp"
    ),
    "t5": Kind(t5, BOTH, "encoder.block.0.layer.0.SelfAttention.v"),
    "bart": Kind(bart, BOTH, "model.encoder.layers.0.fc1"),
    "vit": Kind(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIGHT)), SEEN, "vit.embeddings"),
    "clip vision": Kind(lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**SIGHT)), SEEN, "encoder.layers.0.mlp.fc1"),
    "clip": Kind(clip, {**SEEN, **TOKENS}, "text_model.encoder.layers.0.self_attn.v_proj"),
    "siglip": Kind(
        lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**SIGHT)), SEEN, "encoder.layers.0.self_attn.k_proj"
    ),
    "llava": Kind(llava, IMAGE_AND_TEXT, "model.multi_modal_projector.linear_1"),
    "qwen2_vl": Kind(qwen2_vl, PATCHES, "model.visual.blocks.0"),
}


def mamba() -> nn.Module:
    return hf.MambaForCausalLM(hf.MambaConfig(vocab_size=23, hidden_size=16, num_hidden_layers=3, state_size=4))


def mamba2() -> nn.Module:
    sizes: Any = {"state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 2, "chunk_size": 4}
    return hf.Mamba2ForCausalLM(hf.Mamba2Config(vocab_size=23, hidden_size=16, num_hidden_layers=3, **sizes))


def rwkv(rescale_every: int = 0) -> nn.Module:
    sizes: Any = {"attention_hidden_size": 16, "intermediate_size": 20, "rescale_every": rescale_every}
    return hf.RwkvForCausalLM(hf.RwkvConfig(vocab_size=23, hidden_size=16, num_hidden_layers=3, **sizes))


RECURRENT = {"mamba": mamba, "mamba2": mamba2, "rwkv": rwkv}
MIXERS = {"mamba": "backbone.layers.1.mixer", "mamba2": "backbone.layers.1.mixer", "rwkv": "rwkv.blocks.1.attention"}


def jamba() -> nn.Module:
    sizes: Any = {
        **TEXT, "num_key_value_heads": 2, "num_experts": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
        "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False,
    }  # fmt: skip
    return hf.JambaForCausalLM(hf.JambaConfig(**sizes))


def tiny(build: Callable[[], nn.Module]) -> nn.Module:
    """A random one."""
    return randomised(build(), 3)
