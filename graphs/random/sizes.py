"""The binding sizes of random checkpoints and the `config.json` each of them gives; here those of Qwen3-Omni."""

from __future__ import annotations

import copy
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from .config_sections import CODE_GROUPS, Decoder, Encoder, Size, Vocoder, audio, decoder, media_ids, root_ids, vision
from .qwen3_5_sizes import HYBRID_SIZES, hybrid_configuration
from .tokenizer import TokenIds

SPECIAL_CODEC_IDS = 1024

# The predictor is as wide as the Talker: Talker states enter it without a projection, and its embeddings are added to Talker rows.
SIZES = {
    "tiny": Size(
        Decoder(4, 128, 4, 2, 32, 256, 8, 2, 64), Decoder(3, 96, 4, 2, 32, 128, 8, 2, 48, 64), Decoder(2, 96, 4, 2, 32, 128),
        Vocoder(256, 2, 64, 4, 128, 96), Encoder(2, 64, 4, 256, channels=32), Encoder(2, 64, 4, 128, deepstack=(0,)),
    ),
    "small": Size(
        Decoder(12, 512, 8, 2, 64, 1024, 32, 4, 256), Decoder(8, 512, 8, 2, 64, 1024, 32, 4, 192, 384), Decoder(5, 512, 8, 4, 64, 1024),
        Vocoder(2048, 4, 512, 8, 1024, 512), Encoder(4, 256, 4, 1024, channels=64), Encoder(4, 256, 4, 1024, deepstack=(1, 2)),
    ),
    "medium": Size(
        Decoder(24, 1024, 16, 4, 64, 3072, 64, 8, 384), Decoder(12, 768, 12, 2, 64, 2048, 64, 6, 256, 512), Decoder(5, 768, 12, 6, 64, 2048),
        Vocoder(2048, 8, 768, 12, 2048, 1024), Encoder(12, 512, 8, 2048, channels=128), Encoder(12, 512, 8, 2048, deepstack=(2, 5, 8)),
    ),
}  # fmt: skip


def configuration(size: str, tokens: TokenIds, dtype: str, overrides: dict[str, Any] | None = None, family: str = "qwen3_omni_moe") -> dict[str, Any]:
    """The `config.json` object of `size` of `family`, with `overrides` (dotted path -> value) put in last.

    Raises AntiphonError for an unknown size or a path that does not exist.
    """
    if size not in SIZES:
        raise AntiphonError(f"Unknown size {size!r}; expected one of {', '.join(SIZES)}.")
    config = hybrid_configuration(HYBRID_SIZES[size], tokens, dtype) if family == "qwen3_5_omni" else _configuration(SIZES[size], tokens, dtype)
    config = copy.deepcopy(config)
    for path, value in (overrides or {}).items():
        *sections, name = path.split(".")
        node: Any = config
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if not isinstance(node, dict) or name not in node:
            raise AntiphonError(f"Override {path!r} names nothing in the configuration; expected a dotted path of config.json.")
        node[name] = value
    return config


def _configuration(sizes: Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3OmniMoeForConditionalGeneration"],
        "model_type": "qwen3_omni_moe",
        "dtype": dtype,
        "enable_audio_output": True,
        **root_ids(tokens),
        "thinker_config": _thinker(sizes, tokens, dtype),
        "talker_config": _talker(sizes, tokens, dtype),
        "code2wav_config": _code2wav(sizes.vocoder, dtype),
    }


def _decoder(measures: Decoder, kind: str, vocabulary: int, positions: int) -> dict[str, Any]:
    section = decoder(measures, f"qwen3_omni_moe_{kind}", vocabulary, positions) | {"rope_theta": 1000000.0}
    if measures.experts:
        frequencies = measures.head_dim // 2
        height = width = frequencies * 5 // 16
        section["rope_scaling"] = {
            "rope_type": "default", "type": "default", "interleaved": True, "mrope_interleaved": True,
            "mrope_section": [frequencies - height - width, height, width],
        }  # fmt: skip
    return section


def _thinker(sizes: Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    return {
        "model_type": "qwen3_omni_moe_thinker",
        "dtype": dtype,
        **media_ids(tokens),
        "tie_word_embeddings": False,
        "text_config": _decoder(sizes.thinker, "text", tokens.padded_size, 65536),
        "audio_config": audio("qwen3_omni_moe", sizes.audio, sizes.thinker.hidden),
        "vision_config": vision("qwen3_omni_moe", sizes.vision, sizes.thinker.hidden),
    }


def _talker(sizes: Size, tokens: TokenIds, dtype: str) -> dict[str, Any]:
    codebook = sizes.vocoder.codebook
    return {
        "model_type": "qwen3_omni_moe_talker",
        "dtype": dtype,
        **media_ids(tokens),
        "tie_word_embeddings": False,
        "accept_hidden_layer": sizes.thinker.layers // 2,
        "num_code_groups": CODE_GROUPS,
        "thinker_hidden_size": sizes.thinker.hidden,
        "spatial_merge_size": 2,
        # The published arrangement above the codebook (2148 = 2048 + 100 ...).
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
        "model_type": "qwen3_omni_moe_code2wav",
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
