"""The sizes of random Qwen3.5-Omni checkpoints, and the `config.json` of each size.

Field names: graphs.families.qwen3_5_omni.config. As published, three linear layers precede each full layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...random.config_sections import (
    CODE_GROUPS,
    Decoder,
    Encoder,
    Vocoder,
    audio,
    decoder,
    media_ids,
    root_ids,
    vision,
)
from ...random.tokenizer import TokenIds, train

SPECIAL_CODEC_IDS = 3072
INTERVAL = 4
IDS_PER_SECOND = 7
"""Temporal position ids per second of video: as many as audio encoder tokens (Qwen3-Omni: 13)."""
PARTIAL_ROTARY = 0.25
SPEAKERS = ("chelsie", "ethan", "aiden")
SPEAKER_PROMPTS = ("A bright and warm voice.", "A calm voice.", "A lively voice.")
STYLES = {"news": "Read it like the news.", "whisper": "Whisper."}
# Offsets of the codec ids above the codebook, as in Qwen3-TTS (english is 2050 with a codebook of 2048).
LANGUAGES = {
    "english": 2,
    "german": 5,
    "spanish": 6,
    "chinese": 7,
    "japanese": 10,
    "french": 13,
    "korean": 16,
    "russian": 21,
    "italian": 22,
    "portuguese": 23,
}


@dataclass(frozen=True)
class CodecEncoder:
    """Sizes of the codec encoder.

    Its convolutions start with `filters` channels. Transformer layers of width `hidden` and codebooks of
    `codebook_dim` follow.
    """

    filters: int
    layers: int
    hidden: int
    heads: int
    feed_forward: int
    codebook_dim: int


@dataclass(frozen=True)
class Qwen35Size:
    """Sizes of all stages.

    `code_dim`: width of one code in Code2Wav. `draft`: whether the Thinker has a draft head.
    """

    thinker: Decoder
    talker: Decoder
    predictor: Decoder
    vocoder: Vocoder
    code_dim: int
    codec: CodecEncoder
    audio: Encoder
    vision: Encoder
    draft: bool


# Only in tiny do predictor and Talker have the same width, so that tests cover the predictor with and without
# projection.
SIZES = {
    "tiny": Qwen35Size(
        Decoder(4, 128, 4, 2, 64, 256, 8, 2, 64, 64, (2, 16)),
        Decoder(4, 96, 4, 2, 64, 128, 8, 2, 48, 64, (2, 16)),
        Decoder(2, 96, 4, 2, 64, 128),
        Vocoder(256, 2, 64, 4, 128, 96),
        32,
        CodecEncoder(8, 2, 64, 4, 128, 32),
        Encoder(2, 64, 4, 256, channels=32),
        Encoder(2, 64, 4, 128),
        True,
    ),
    "small": Qwen35Size(
        Decoder(12, 512, 8, 2, 64, 1024, 32, 4, 256, 256, (4, 64)),
        Decoder(8, 512, 8, 2, 64, 1024, 32, 4, 192, 384, (4, 64)),
        Decoder(5, 384, 6, 2, 64, 1024),
        Vocoder(2048, 4, 512, 8, 1024, 512),
        128,
        CodecEncoder(16, 4, 256, 4, 1024, 128),
        Encoder(4, 256, 4, 1024, channels=64),
        Encoder(4, 256, 4, 1024),
        True,
    ),
    "medium": Qwen35Size(
        Decoder(24, 1024, 16, 4, 64, 3072, 64, 8, 384, 384, (8, 64)),
        Decoder(12, 768, 12, 2, 64, 2048, 64, 6, 256, 512, (8, 64)),
        Decoder(5, 512, 8, 2, 64, 2048),
        Vocoder(2048, 8, 768, 12, 2048, 1024),
        256,
        CodecEncoder(32, 8, 512, 8, 2048, 256),
        Encoder(12, 512, 8, 2048, channels=128),
        Encoder(12, 512, 8, 2048),
        False,
    ),
}


def qwen3_5_configuration(sizes: Qwen35Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    """The `config.json` object of `sizes`; `code2wav_config` moves to the codec's own folder later."""
    return {
        "architectures": ["Qwen3OmniNextForConditionalGeneration"],
        "model_type": "qwen3_5_omni",
        "dtype": dtype,
        "enable_audio_output": True,
        **root_ids(tokens),
        "thinker_config": _thinker(sizes, tokens, dtype),
        "talker_config": _talker(sizes, tokens, dtype),
        "code2wav_config": _code2wav(sizes.vocoder, sizes.code_dim),
        "codec_encoder_config": _codec_encoder(sizes.codec, sizes.vocoder.codebook),
    }


def _decoder(measures: Decoder, kind: str, vocabulary: int, positions: int) -> dict[str, Any]:
    frequencies = int(measures.head_dim * PARTIAL_ROTARY) // 2
    width = frequencies // 3
    height = (frequencies - width) // 2
    section = decoder(measures, f"qwen3_omni_next_{kind}", vocabulary, positions) | {
        "attn_output_gate": True,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000000.0,
            "partial_rotary_factor": PARTIAL_ROTARY,
            "mrope_interleaved": True,
            "mrope_section": [frequencies - height - width, height, width],
        },
    }
    key_heads, head_size = measures.linear
    if key_heads:
        section |= {
            "full_attention_interval": INTERVAL,
            "layer_types": [
                "full_attention" if (layer + 1) % INTERVAL == 0 else "linear_attention"
                for layer in range(measures.layers)
            ],
            "linear_num_key_heads": key_heads,
            "linear_num_value_heads": 2 * key_heads,
            "linear_key_head_dim": head_size,
            "linear_value_head_dim": head_size,
            "linear_conv_kernel_dim": 4,
        }
    return section


def _thinker(sizes: Qwen35Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    return {
        "model_type": "qwen3_omni_next_thinker",
        "dtype": dtype,
        **media_ids(tokens),
        "position_id_per_seconds": IDS_PER_SECOND,
        "tie_word_embeddings": False,
        "mtp_num_hidden_layers": int(sizes.draft),
        # Field names defined by Antiphon: the published model has both values under unknown names.
        "timestamp_format": "<{seconds:.1f} seconds>",
        "audio_timestamp_seconds": 0.0,
        "text_config": _decoder(sizes.thinker, "text_moe", tokens.padded_size, 262144),
        "audio_config": audio("qwen3_omni_next", sizes.audio, sizes.thinker.hidden),
        "vision_config": vision("qwen3_omni_next", sizes.vision, sizes.thinker.hidden),
    }


def _talker(sizes: Qwen35Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    codebook = sizes.vocoder.codebook
    return {
        "model_type": "qwen3_omni_next_talker",
        "dtype": dtype,
        **media_ids(tokens),
        "position_id_per_seconds": IDS_PER_SECOND,
        "tie_word_embeddings": False,
        "accept_hidden_layer": sizes.thinker.layers // 2,
        "num_code_groups": CODE_GROUPS,
        "thinker_hidden_size": sizes.thinker.hidden,
        "text_vocab_size": tokens.padded_size,
        "spatial_merge_size": 2,
        # The same distance above the codebook as the default ids of transformers (4196 with a codebook of
        # 2048).
        "codec_pad_id": codebook + 2148,
        "codec_bos_id": codebook + 2149,
        "codec_eos_token_id": codebook + 2150,
        "codec_think_id": codebook + 2154,
        "codec_nothink_id": codebook + 2155,
        "codec_think_bos_id": codebook + 2156,
        "codec_think_eos_id": codebook + 2157,
        "talker_language_id": {name: codebook + offset for name, offset in LANGUAGES.items()},
        "speaker_id": {name: row for row, name in enumerate(SPEAKERS)},
        "default_speaker_id": 0,
        "speaker_system_prompt_id": {
            name: _text(prompt) for name, prompt in zip(SPEAKERS, SPEAKER_PROMPTS, strict=True)
        },
        "talker_assistant_prompt_id_mapping": {name: _text(prompt) for name, prompt in STYLES.items()},
        "max_thinker_to_talker_mm_tokens": 16,
        "talker_text_in_chunk_n": 4,
        "talker_codec_output_chunk_m": 4,
        "text_config": _decoder(sizes.talker, "talker_text", codebook + SPECIAL_CODEC_IDS, 65536),
        "code_predictor_config": {
            **_decoder(sizes.predictor, "talker_code_predictor", codebook, 32768),
            "num_code_groups": CODE_GROUPS,
        },
    }


def _text(text: str) -> list[int]:
    return train().encode(text, add_special_tokens=False).ids


def _code2wav(vocoder: Vocoder, code_dim: int) -> dict[str, Any]:
    return {
        "model_type": "qwen3_omni_next_code2wav",
        "codebook_size": vocoder.codebook,
        "num_quantizers": CODE_GROUPS,
        "num_semantic_quantizers": 1,
        "codebook_dim": code_dim,
        "quantizer_dim": 2 * code_dim,
        "latent_dim": vocoder.hidden,
        "pre_conv_kernel": 3,
        "hidden_size": vocoder.hidden,
        "intermediate_size": vocoder.feed_forward,
        "num_hidden_layers": vocoder.layers,
        "num_attention_heads": vocoder.heads,
        "num_key_value_heads": vocoder.heads,
        "head_dim": vocoder.hidden // vocoder.heads,
        "sliding_window": 72,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 16384,
        "rope_theta": 5000000.0,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "decoder_dim": vocoder.decoder_width,
        "sample_rate": 24000,
    }


def _codec_encoder(codec: CodecEncoder, codebook: int) -> dict[str, Any]:
    return {
        "model_type": "mimi",
        "num_quantizers": CODE_GROUPS,
        "num_semantic_quantizers": 1,
        "codebook_size": codebook,
        "codebook_dim": codec.codebook_dim,
        "vector_quantization_hidden_dimension": codec.codebook_dim,
        "hidden_size": codec.hidden,
        "num_filters": codec.filters,
        "num_residual_layers": 1,
        "upsampling_ratios": [8, 6, 5, 4],
        "kernel_size": 7,
        "last_kernel_size": 3,
        "residual_kernel_size": 3,
        "dilation_growth_rate": 2,
        "compress": 2,
        "num_hidden_layers": codec.layers,
        "num_attention_heads": codec.heads,
        "num_key_value_heads": codec.heads,
        "head_dim": codec.hidden // codec.heads,
        "intermediate_size": codec.feed_forward,
        "sliding_window": 250,
        "norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "sampling_rate": 24000,
    }
