"""Names and shapes of the codec encoder's tensors. Imports no torch: checkpoints are written without it."""

from __future__ import annotations

import math

from ...config import CodecEncoderConfig

PREFIX = "codec_encoder"
STRIDE = 2
"""Stride of the last convolution, from transformer positions to frames; a constant in the reference class."""
SIDES = ("semantic", "acoustic")
"""Names of the two residual quantisers."""


def samples_per_frame(config: CodecEncoderConfig) -> int:
    """Waveform samples per frame: the product of all strides (1,920 in the published models)."""
    return STRIDE * math.prod(config.upsampling_ratios)


def tensor_shapes(config: CodecEncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors that the stage reads. Names are MimiModel's behind `codec_encoder.`.

    Random weights use all codes about equally often under two conditions. The latents have almost no constant
    part, so each output channel of a convolution has weights of mean 0. The codebook entries are small: their
    std is at most sqrt(2 * ln(codebook_size) / codebook_dim) times that of the latents. Of larger entries the
    shortest always wins.
    """
    hidden, channels = config.hidden_size, config.num_filters
    shapes: dict[str, tuple[int, ...]] = {}

    def convolution(name: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"encoder.layers.{name}.conv.weight"], shapes[f"encoder.layers.{name}.conv.bias"] = (
            (outputs, inputs, kernel),
            (outputs,),
        )

    convolution("0", 1, channels, config.kernel_size)
    for (units, downsample), ratio in zip(block_places(config), config.upsampling_ratios[::-1], strict=True):
        narrow = channels // config.compress
        for unit in units:
            convolution(f"{unit}.block.1", channels, narrow, config.residual_kernel_size)
            convolution(f"{unit}.block.3", narrow, channels, 1)
        convolution(str(downsample), channels, 2 * channels, 2 * ratio)
        channels *= 2
    convolution(str(last_place(config)), channels, hidden, config.last_kernel_size)
    queries, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    for index in range(config.num_hidden_layers):
        layer = f"encoder_transformer.layers.{index}"
        shapes |= {
            f"{layer}.{norm}.{part}": (hidden,)
            for norm in ("input_layernorm", "post_attention_layernorm")
            for part in ("weight", "bias")
        }
        shapes |= {
            f"{layer}.self_attn.{name}_proj.weight": (rows, hidden)
            for name, rows in (("q", queries), ("k", keys), ("v", keys))
        }
        shapes[f"{layer}.self_attn.o_proj.weight"] = (hidden, queries)
        shapes[f"{layer}.mlp.fc1.weight"], shapes[f"{layer}.mlp.fc2.weight"] = (
            (config.intermediate_size, hidden),
            (hidden, config.intermediate_size),
        )
        shapes |= {f"{layer}.{branch}_layer_scale.scale": (hidden,) for branch in ("self_attn", "mlp")}
    shapes["downsample.conv.weight"] = (hidden, hidden, 2 * STRIDE)
    for side, count in zip(SIDES, codebook_counts(config), strict=True):
        if config.codebook_dim != hidden:
            shapes[f"quantizer.{side}_residual_vector_quantizer.input_proj.weight"] = (
                config.codebook_dim,
                hidden,
                1,
            )
        for index in range(count):
            codebook = f"quantizer.{side}_residual_vector_quantizer.layers.{index}.codebook"
            shapes |= {
                f"{codebook}.embed_sum": (config.codebook_size, config.codebook_dim),
                f"{codebook}.cluster_usage": (config.codebook_size,),
            }
    return {f"{PREFIX}.{name}": shape for name, shape in shapes.items()}


def block_places(config: CodecEncoderConfig) -> list[tuple[range, int]]:
    """For every block the indices of its residual units and of its strided convolution.

    They are positions in MimiModel's list of layers, which also contains the ELUs.
    """
    step = config.num_residual_layers + 2
    return [
        (range(start, start + step - 2), start + step - 1)
        for start in range(1, 1 + step * len(config.upsampling_ratios), step)
    ]


def last_place(config: CodecEncoderConfig) -> int:
    """The index of the last convolution in MimiModel's list of layers."""
    return (config.num_residual_layers + 2) * len(config.upsampling_ratios) + 2


def codebook_counts(config: CodecEncoderConfig) -> tuple[int, int]:
    """The number of codebooks of the semantic and of the acoustic quantiser."""
    return config.num_semantic_quantizers, config.num_quantizers - config.num_semantic_quantizers
