"""Configuration sections of random checkpoints that all families share, and the sizes that determine them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tokenizer import TokenIds

CODE_GROUPS = 16


@dataclass(frozen=True)
class Decoder:
    """Sizes of a decoder.

    `experts`: 0 means dense. `feed_forward`: width of a dense network; in Qwen3-Omni's Talker that of its
    projections.
    `linear`: key heads, key head size and value head size of Gated DeltaNet layers; there are twice as many
    value heads.
    """

    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_dim: int
    feed_forward: int
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_expert_width: int = 0
    linear: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Encoder:
    """Sizes of an audio or vision encoder.

    `channels`: width of the audio convolutions. `deepstack`: vision layers whose features enter the decoder.
    """

    layers: int
    hidden: int
    heads: int
    feed_forward: int
    channels: int = 0
    deepstack: tuple[int, ...] = ()


@dataclass(frozen=True)
class Vocoder:
    """Sizes of Code2Wav: a transformer of width `hidden`, then a decoder that starts at `decoder_width`."""

    codebook: int
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    decoder_width: int


def root_ids(tokens: TokenIds) -> dict[str, int]:
    """The token ids at the root of config.json."""
    return {
        "im_start_token_id": tokens["<|im_start|>"],
        "im_end_token_id": tokens["<|im_end|>"],
        "system_token_id": tokens["system"],
        "user_token_id": tokens["user"],
        "assistant_token_id": tokens["assistant"],
        "tts_pad_token_id": tokens["<tts_pad>"],
        "tts_bos_token_id": tokens["<tts_text_bos>"],
        "tts_eos_token_id": tokens["<tts_text_eod>"],
    }


def media_ids(tokens: TokenIds) -> dict[str, int]:
    """The token ids and position constants that the Thinker and the Talker section both state."""
    return {
        "audio_token_id": tokens["<|audio_pad|>"],
        "image_token_id": tokens["<|image_pad|>"],
        "video_token_id": tokens["<|video_pad|>"],
        "audio_start_token_id": tokens["<|audio_start|>"],
        "audio_end_token_id": tokens["<|audio_end|>"],
        "vision_start_token_id": tokens["<|vision_start|>"],
        "vision_end_token_id": tokens["<|vision_end|>"],
        "user_token_id": tokens["user"],
        "position_id_per_seconds": 13,
        "seconds_per_chunk": 2,
    }


def decoder(measures: Decoder, kind: str, vocabulary: int, positions: int) -> dict[str, Any]:
    """The section of a decoder of model type `kind`, without the rotary embedding, which the family adds."""
    section: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": measures.hidden,
        "intermediate_size": measures.feed_forward,
        "num_hidden_layers": measures.layers,
        "num_attention_heads": measures.heads,
        "num_key_value_heads": measures.key_value_heads,
        "head_dim": measures.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
    }
    if measures.experts:
        section |= {
            "num_experts": measures.experts,
            "num_experts_per_tok": measures.experts_per_token,
            "moe_intermediate_size": measures.expert_width,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    if measures.shared_expert_width:
        section["shared_expert_intermediate_size"] = measures.shared_expert_width
    return section


def audio(family: str, encoder: Encoder, outputs: int) -> dict[str, Any]:
    """The section of an audio encoder with output width `outputs`."""
    return {
        "model_type": f"{family}_audio_encoder",
        "num_mel_bins": 128,
        "encoder_layers": encoder.layers,
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_dim": encoder.feed_forward,
        "d_model": encoder.hidden,
        "downsample_hidden_size": encoder.channels,
        "output_dim": outputs,
        "n_window": 50,
        "n_window_infer": 800,
        "conv_chunksize": 500,
        "max_source_positions": 1500,
        "activation_function": "gelu",
        "scale_embedding": False,
    }


def vision(family: str, encoder: Encoder, outputs: int) -> dict[str, Any]:
    """The section of a vision encoder with output width `outputs`."""
    return {
        "model_type": f"{family}_vision_encoder",
        "depth": encoder.layers,
        "hidden_size": encoder.hidden,
        "intermediate_size": encoder.feed_forward,
        "num_heads": encoder.heads,
        "in_channels": 3,
        "patch_size": 16,
        "temporal_patch_size": 2,
        "spatial_merge_size": 2,
        "num_position_embeddings": 2304,
        "out_hidden_size": outputs,
        "deepstack_visual_indexes": list(encoder.deepstack),
        "hidden_act": "gelu_pytorch_tanh",
    }
