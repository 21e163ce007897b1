"""A random model of a few thousand weights for nearly every class of sequence classification that transformers has.

Sizes are set by the names of a config's keys, which the architectures share; what an architecture
needs beyond that is in SETTINGS.
"""

from pathlib import Path
from typing import Any

from tiny_models import MAX_POSITIONS, tiny_tokenizer

SIZES: dict[str, Any] = (
    dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 32)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2)
    | dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4)
    | dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4)
    | dict.fromkeys(("intermediate_size", "n_inner", "hidden_dim", "d_ff", "d_inner", "dff"), 48)
    | dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim"), 48)
    | dict.fromkeys(("head_dim", "d_head", "d_kv"), 8)
    | dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), MAX_POSITIONS)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4)
    | {"num_key_value_heads": 2, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
    | {"entity_vocab_size": 8, "entity_emb_size": 8, "rotary_dim": 4}
)
"""Keys of configs and their sizes."""

LATENT_ATTENTION = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 8,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}

LINEAR_ATTENTION = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
}

SETTINGS: dict[str, dict[str, Any]] = {
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 16},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
    "deepseek_v2": LATENT_ATTENTION,
    "deepseek_v3": LATENT_ATTENTION,
    "axk1": LATENT_ATTENTION,
    "axk2": LATENT_ATTENTION,
    "minicpm3": LATENT_ATTENTION,
    "electra": {"embedding_size": 16},
    "funnel": {"block_sizes": [1, 1], "block_repeats": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "layoutlm": {"max_2d_position_embeddings": 64},
    "lilt": {"channel_shrink_ratio": 1, "hidden_size": 48, "intermediate_size": 48},
    "longformer": {"attention_window": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4},
    "esmc": {"num_key_value_heads": 4},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]} | LINEAR_ATTENTION,
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]} | LINEAR_ATTENTION,
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
        "num_feedforward_networks": 1,
    },
    "perceiver": {
        "num_latents": 4,
        "d_latents": 32,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 4,
        "num_cross_attention_heads": 4,
    },
    "qwen2_moe": {"shared_expert_intermediate_size": 16},
    "reformer": {
        "attention_head_size": 8,
        "axial_pos_embds": False,
        "attn_layers": ["local", "lsh"],
        "feed_forward_size": 48,
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 2,
        "max_position_embeddings": 64,
    },
    "roc_bert": {"pronunciation_vocab_size": 8, "shape_vocab_size": 8},
    "t5": {"decoder_start_token_id": 0},
    "mt5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0},
    "tapas": {"type_vocab_sizes": [3, 4, 4, 2, 4, 4, 4]},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
"""What an architecture needs beyond SIZES."""

NOT_BUILT = (
    "cohere_compass_text",
    "gemma3",
    "layoutlmv2",
    "layoutlmv3",
    "mistral4",
    "modernvbert",
    "qwen3_5",
    "t5gemma",
    "t5gemma2",
    "ultravbert",
    "zamba",
    "zamba2",
)
"""Models of images and text, and models whose configs have no small form with these keys."""


def architectures() -> list[str]:
    """The model types that AutoModelForSequenceClassification knows, without NOT_BUILT."""
    from transformers.models.auto import modeling_auto

    names = modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return [name for name in names if name not in NOT_BUILT]


def tiny_settings(architecture: str) -> dict[str, Any]:
    """The keys of the architecture's config that make it tiny."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(architecture)
    keys = set(default.to_dict()) | set(default.attribute_map or {})
    settings = {key: size for key, size in SIZES.items() if key in keys}
    settings |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    return settings | SETTINGS.get(architecture, {})


def tiny_classifier(architecture: str, folder: Path, **options: Any) -> Path:
    """Save a random pretrained model of an architecture, with a tokenizer that has `options`."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(**options)
    settings = {"vocab_size": len(tokenizer)} | tiny_settings(architecture)
    config = AutoConfig.for_model(architecture, **settings)
    # AutoModel has two classes for Funnel, and this is neither a part of the other.
    kind = AutoModelForSequenceClassification if architecture == "funnel" else AutoModel
    kind.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
