"""The sizes of random Qwen3-Omni checkpoints and their `config.json` (HF `Qwen3OmniMoeConfig`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ...random.tokenizer import TokenIds

SPECIAL_CODEC_IDS = 1024


@dataclass(frozen=True)
class Qwen3Size:
    """Sizes of all stages."""

    thinker: Decoder
    talker: Decoder
    predictor: Decoder
    vocoder: Vocoder
    audio: Encoder
    vision: Encoder


NAME = "qwen3_omni_moe"
"""The prefix of every `model_type` in config.json."""

# The predictor has the width of the Talker: it reads Talker rows without a projection, and its embeddings are
# added to Talker rows.
SIZES = {
    "tiny": Qwen3Size(
        Decoder(4, 128, 4, 2, 32, 256, 8, 2, 64),
        Decoder(3, 96, 4, 2, 32, 128, 8, 2, 48, 64),
        Decoder(2, 96, 4, 2, 32, 128),
        Vocoder(256, 2, 64, 4, 128, 96),
        Encoder(2, 64, 4, 256, channels=32),
        Encoder(2, 64, 4, 128, deepstack=(0,)),
    ),
    "small": Qwen3Size(
        Decoder(12, 512, 8, 2, 64, 1024, 32, 4, 256),
        Decoder(8, 512, 8, 2, 64, 1024, 32, 4, 192, 384),
        Decoder(5, 512, 8, 4, 64, 1024),
        Vocoder(2048, 4, 512, 8, 1024, 512),
        Encoder(4, 256, 4, 1024, channels=64),
        Encoder(4, 256, 4, 1024, deepstack=(1, 2)),
    ),
    "medium": Qwen3Size(
        Decoder(24, 1024, 16, 4, 64, 3072, 64, 8, 384),
        Decoder(12, 768, 12, 2, 64, 2048, 64, 6, 256, 512),
        Decoder(5, 768, 12, 6, 64, 2048),
        Vocoder(2048, 8, 768, 12, 2048, 1024),
        Encoder(12, 512, 8, 2048, channels=128),
        Encoder(12, 512, 8, 2048, deepstack=(2, 5, 8)),
    ),
}


def qwen3_configuration(sizes: Qwen3Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    """The `config.json` object of `sizes`."""
    return {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "model_type": NAME,
        "dtype": dtype,
        "enable_audio_output": True,
        **root_ids(tokens),
        "thinker_config": _thinker(sizes, tokens, dtype),
        "talker_config": _talker(sizes, tokens, dtype),
        "code2wav_config": _code2wav(sizes.vocoder, dtype),
    }


def _decoder(measures: Decoder, kind: str, vocabulary: int, positions: int) -> dict[str, Any]:
    section = decoder(measures, f"{NAME}_{kind}", vocabulary, positions) | {"rope_theta": 1000000.0}
    if measures.experts:
        frequencies = measures.head_dim // 2
        height = width = frequencies * 5 // 16
        section["rope_scaling"] = {
            "rope_type": "default",
            "type": "default",
            "interleaved": True,
            "mrope_interleaved": True,
            "mrope_section": [frequencies - height - width, height, width],
        }
    return section


def _thinker(sizes: Qwen3Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    return {
        "model_type": f"{NAME}_thinker",
        "dtype": dtype,
        **media_ids(tokens),
        "tie_word_embeddings": False,
        "text_config": _decoder(sizes.thinker, "text", tokens.padded_size, 65536),
        "audio_config": audio(NAME, sizes.audio, sizes.thinker.hidden),
        "vision_config": vision(NAME, sizes.vision, sizes.thinker.hidden),
    }


def _talker(sizes: Qwen3Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    codebook = sizes.vocoder.codebook
    return {
        "model_type": f"{NAME}_talker",
        "dtype": dtype,
        **media_ids(tokens),
        "tie_word_embeddings": False,
        "accept_hidden_layer": sizes.thinker.layers // 2,
        "num_code_groups": CODE_GROUPS,
        "thinker_hidden_size": sizes.thinker.hidden,
        "spatial_merge_size": 2,
        # As published, the special ids are above the codebook (2148 = 2048 + 100 ...).
        "codec_pad_id": codebook + 100,
        "codec_bos_id": codebook + 101,
        "codec_eos_token_id": codebook + 102,
        "codec_think_id": codebook + 106,
        "codec_nothink_id": codebook + 107,
        "codec_think_bos_id": codebook + 108,
        "codec_think_eos_id": codebook + 109,
        "speaker_id": {"chelsie": codebook + 253, "ethan": codebook + 254, "aiden": codebook + 255},
        "text_config": _decoder(sizes.talker, "talker_text", codebook + SPECIAL_CODEC_IDS, 65536),
        "code_predictor_config": {
            **_decoder(sizes.predictor, "talker_code_predictor", codebook, 32768),
            "num_code_groups": CODE_GROUPS,
        },
    }


def _code2wav(vocoder: Vocoder, dtype: str) -> dict[str, Any]:
    return {
        "model_type": f"{NAME}_code2wav",
        "dtype": dtype,
        "codebook_size": vocoder.codebook,
        "num_quantizers": CODE_GROUPS,
        "hidden_size": vocoder.hidden,
        "intermediate_size": vocoder.feed_forward,
        "num_hidden_layers": vocoder.layers,
        "num_attention_heads": vocoder.heads,
        "num_key_value_heads": vocoder.heads,
        "hidden_act": "silu",
        "sliding_window": 72,
        "rms_norm_eps": 1e-5,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_theta": 10000.0,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "decoder_dim": vocoder.decoder_width,
    }
