"""The largest sizes that a configuration may state. They limit the loops and allocations of later code."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..config import (
    AudioConfig,
    Code2WavConfig,
    CodecEncoderConfig,
    DecoderConfig,
    LinearAttentionConfig,
    TalkerConfig,
    ThinkerConfig,
    VisionConfig,
)

LARGEST_COUNT = 2**31 - 1
"""Bound of an integer field that has no bound of its own: ids, positions and counters must fit int32."""
LARGEST_NUMBER = 1e15
"""Bound of a float field: results stay within float32."""
LONGEST_LIST = 1024
LONGEST_NAME = 200
"""Characters in the name of a voice, a language or a tensor; published names have up to 100."""
LARGEST_PARAMETERS = 2**43
"""Parameters of all stages together: 8.8 * 10^12, about eight times the largest published model of any
kind."""

_LAYERS, _HEADS, _WIDTH, _INNER, _KERNEL = 512, 2**12, 2**17, 2**20, 1024
# The largest published models have 126 layers, 512 experts, 128 heads, 20,480 columns, 53,248 inner
# columns and 262,144 tokens.
_TABLE: dict[type, dict[str, int]] = {
    DecoderConfig: {
        "vocab_size": 2**24,
        "hidden_size": _WIDTH,
        "intermediate_size": _INNER,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "head_dim": 2**13,
        "num_experts": 2**12,
        "num_experts_per_tok": 2**12,
        "moe_intermediate_size": _INNER,
        "shared_expert_intermediate_size": _INNER,
        "decoder_sparse_step": _LAYERS,
    },
    LinearAttentionConfig: {
        "linear_num_key_heads": _HEADS,
        "linear_num_value_heads": _HEADS,
        "linear_key_head_dim": 2**13,
        "linear_value_head_dim": 2**13,
        "linear_conv_kernel_dim": _KERNEL,
    },
    AudioConfig: {
        "num_mel_bins": 2**12,
        "encoder_layers": _LAYERS,
        "encoder_attention_heads": _HEADS,
        "encoder_ffn_dim": _INNER,
        "d_model": _WIDTH,
        "downsample_hidden_size": 2**14,
        "output_dim": _WIDTH,
        "n_window": 2**16,
        "n_window_infer": 2**20,
        "max_source_positions": 2**20,
    },
    VisionConfig: {
        "depth": _LAYERS,
        "hidden_size": _WIDTH,
        "intermediate_size": _INNER,
        "num_heads": _HEADS,
        "in_channels": 64,
        "patch_size": 256,
        "temporal_patch_size": 64,
        "spatial_merge_size": 64,
        "num_position_embeddings": 2**20,
        "out_hidden_size": _WIDTH,
    },
    Code2WavConfig: {
        "codebook_size": 2**20,
        "num_quantizers": 128,
        "hidden_size": _WIDTH,
        "intermediate_size": _INNER,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "sliding_window": 2**20,
        "upsample_rates": _KERNEL,
        "upsampling_ratios": _KERNEL,
        "decoder_dim": 2**16,
        "codebook_dim": _WIDTH,
        "quantizer_dim": _WIDTH,
        "latent_dim": _WIDTH,
        "pre_conv_kernel": _KERNEL,
        "num_semantic_quantizers": 128,
        "head_dim": 2**13,
        "sample_rate": 2**20,
    },
    CodecEncoderConfig: {
        "num_quantizers": 128,
        "num_semantic_quantizers": 128,
        "codebook_size": 2**20,
        "codebook_dim": _WIDTH,
        "hidden_size": _WIDTH,
        "num_filters": 2**12,
        "num_residual_layers": 16,
        "upsampling_ratios": _KERNEL,
        "kernel_size": _KERNEL,
        "last_kernel_size": _KERNEL,
        "residual_kernel_size": _KERNEL,
        "dilation_growth_rate": 16,
        "compress": _KERNEL,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "head_dim": 2**13,
        "intermediate_size": _INNER,
        "sliding_window": 2**20,
        "sampling_rate": 2**20,
    },
    TalkerConfig: {
        "num_code_groups": 128,
        "position_id_per_seconds": 10**6,
        "spatial_merge_size": 64,
        "text_rows": 2**16,
        "frame_rows": 2**16,
    },
    ThinkerConfig: {"position_id_per_seconds": 10**6},
}
_LONGEST = {"upsample_rates": 16, "upsampling_ratios": 16, "deepstack_visual_indexes": 64}
"""Bounds on the length of lists in which each entry adds a block of layers or halves a width."""


def excess(cls: type, name: str, value: Any) -> str:
    """The bound of field `name` of dataclass `cls`, in words, if `value` exceeds it; otherwise "".

    Example: "an integer of at most 512". `value` has the right type.
    """
    if isinstance(value, tuple):
        longest = _LONGEST.get(name, LONGEST_LIST)
        if len(value) > longest:
            return f"a list of at most {longest} entries"
        return next(
            (
                f"integers of at most {bound(cls, name)}"
                for item in value
                if isinstance(item, int) and item > bound(cls, name)
            ),
            "",
        )
    if isinstance(value, float):
        return "" if value <= LARGEST_NUMBER else f"a number of at most {LARGEST_NUMBER:g}"
    if isinstance(value, int) and value > bound(cls, name):
        return f"an integer of at most {bound(cls, name)}"
    return f"at most {LONGEST_NAME} letters" if isinstance(value, str) and len(value) > LONGEST_NAME else ""


def bound(cls: type, name: str) -> int:
    """The largest integer that field `name` of dataclass `cls` may hold."""
    return _TABLE.get(cls, {}).get(name, LARGEST_COUNT)


def first_excess(config: Any) -> tuple[str, str] | None:
    """The first field of dataclass `config` that exceeds its bound, and the bound in words; else None."""
    for entry in dataclasses.fields(config):
        expected = excess(type(config), entry.name, getattr(config, entry.name))
        if expected:
            return entry.name, expected
    return None


def unusable_name(names: Any) -> str | None:
    """The first of `names` that is not a string of 1 to LONGEST_NAME printable characters, else None.

    It is returned as a shortened `repr`, for an error message.
    """
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
            return f"{name!r:.60}"
    return None
