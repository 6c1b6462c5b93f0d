"""Random tensors of Code2Wav, for averaged embeddings (Qwen3-Omni) or a split quantiser (Qwen3.5-Omni).

Names: graphs.stages.code2wav.tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import Code2WavConfig
from ..stages.code2wav.tensors import (
    DILATIONS,
    FUSED_LAYER,
    KERNEL,
    NESTED_DECODER,
    PLAIN_DECODER,
    SPLIT_LAYER,
    DecoderNames,
    LayerNames,
    quantizer_groups,
)
from ..stages.code2wav.tensors import head_dim as head_dim_of
from ..stages.code2wav.tensors import latent_dim as latent_dim_of
from .initializers import BIAS, GATED_POWER, GELU_POWER, Draw, Tensor, Uniform, embedding, linear, norm

USAGE = (0.8, 1.25)
"""Range of an entry's usage count. The stored sum of an entry is the entry times its count."""


def averaged_code2wav(wave: Code2WavConfig) -> Iterator[Tensor]:
    """The tensors of Qwen3-Omni's Code2Wav."""
    # The transformer reads the mean of num_quantizers rows; this std gives that mean unit variance.
    rows, std = wave.codebook_size * wave.num_quantizers, math.sqrt(wave.num_quantizers)
    yield embedding("code2wav.code_embedding.weight", rows, wave.hidden_size, std)
    yield from _transformer("code2wav.pre_transformer", wave, SPLIT_LAYER)
    yield from _vocoder("code2wav", wave, PLAIN_DECODER)


def split_code2wav(wave: Code2WavConfig) -> Iterator[Tensor]:
    """The tensors of Qwen3.5-Omni's Code2Wav, in float32 as in the published folder."""
    parts = (
        _quantizer("code2wav", wave),
        _transformer("code2wav.pre_transformer", wave, FUSED_LAYER),
        _vocoder("code2wav", wave, NESTED_DECODER),
    )
    for part in parts:
        for tensor in part:
            yield Tensor(tensor.name, tensor.shape, tensor.draw, "float32")


def _quantizer(prefix: str, wave: Code2WavConfig) -> Iterator[Tensor]:
    for group, count in quantizer_groups(wave):
        for index in range(count):
            codebook = f"{prefix}.{group}.vq.layers.{index}._codebook"
            yield Tensor(f"{codebook}.embedding_sum", (wave.codebook_size, wave.codebook_dim), Draw(1.0))
            yield Tensor(f"{codebook}.cluster_usage", (wave.codebook_size,), Uniform(*USAGE))
        # The projected sums of both groups have the same variance.
        yield Tensor(
            f"{prefix}.{group}.output_proj.weight",
            (wave.quantizer_dim, wave.codebook_dim, 1),
            Draw(1 / math.sqrt(2 * count * wave.codebook_dim)),
        )
    kernel, latent = wave.pre_conv_kernel, latent_dim_of(wave)
    yield from _convolution(
        f"{prefix}.pre_conv.conv", (latent, wave.quantizer_dim, kernel), kernel * wave.quantizer_dim
    )


def _transformer(prefix: str, wave: Code2WavConfig, names: LayerNames) -> Iterator[Tensor]:
    hidden, inner, latent, head_dim = (
        wave.hidden_size,
        wave.intermediate_size,
        latent_dim_of(wave),
        head_dim_of(wave),
    )
    queries, keys = wave.num_attention_heads * head_dim, wave.num_key_value_heads * head_dim
    rows = (queries, keys, keys) if len(names.projections) == 3 else (queries + 2 * keys,)
    if latent != hidden:
        yield from linear(f"{prefix}.input_proj", hidden, latent, bias=True)
    for layer in range(wave.num_hidden_layers):
        name = f"{prefix}.layers.{layer}"
        yield from norm(f"{name}.{names.attention_norm}", hidden)
        for projection, count in zip(names.projections, rows, strict=True):
            yield from linear(f"{name}.{projection}", count, hidden, bias=wave.attention_bias)
        yield from linear(f"{name}.{names.output}", hidden, queries, bias=wave.attention_bias)
        yield from norm(f"{name}.{names.feed_forward_norm}", hidden)
        yield from linear(f"{name}.{names.gate}", inner, hidden)
        yield from linear(f"{name}.{names.up}", inner, hidden)
        yield from linear(f"{name}.{names.down}", hidden, inner, gain=1 / math.sqrt(GATED_POWER))
        for scale in (names.attention_scale, names.feed_forward_scale):
            yield Tensor(f"{name}.{scale}", (hidden,), Draw(0.002, mean=0.01))
    yield from norm(f"{prefix}.norm", hidden)
    if latent != hidden:
        yield from linear(f"{prefix}.output_proj", latent, hidden, bias=True)


def _vocoder(prefix: str, wave: Code2WavConfig, names: DecoderNames) -> Iterator[Tensor]:
    """The tensors of the upsampling blocks and the convolutional decoder."""
    hidden, width, root = latent_dim_of(wave), wave.decoder_dim, f"{prefix}.{names.root}"
    for index, ratio in enumerate(wave.upsampling_ratios):
        name = f"{prefix}.upsample.{index}"
        yield from _convolution(f"{name}.0.conv", (hidden, hidden, ratio), hidden, output_axis=1)
        yield from _convolution(f"{name}.1.dwconv.conv", (hidden, 1, KERNEL), KERNEL, zero_sum=False)
        yield from norm(f"{name}.1.norm", hidden, bias=True)
        yield from linear(f"{name}.1.pwconv1", 4 * hidden, hidden, bias=True)
        yield from linear(f"{name}.1.pwconv2", hidden, 4 * hidden, bias=True, gain=1 / math.sqrt(GELU_POWER))
        yield Tensor(f"{name}.1.gamma", (hidden,), Draw(0.05, mean=0.3))
    yield from _convolution(f"{root}0.conv", (width, hidden, KERNEL), KERNEL * hidden)
    for index, rate in enumerate(wave.upsample_rates):
        name, narrow = f"{root}{index + 1}.block", width // 2
        yield from _snake(f"{name}.0", width)
        # With kernel 2 * rate and stride rate, two taps contribute to every sample.
        yield from _convolution(f"{name}.1.conv", (width, narrow, 2 * rate), 2 * width, output_axis=1)
        for unit in range(len(DILATIONS)):
            first, dilated, second, pointwise = (f"{name}.{unit + 2}.{part}" for part in names.unit)
            yield from _snake(first, narrow)
            yield from _convolution(f"{dilated}.conv", (narrow, narrow, KERNEL), KERNEL * narrow)
            yield from _snake(second, narrow)
            yield from _convolution(f"{pointwise}.conv", (narrow, narrow, 1), narrow, gain=0.4)
        width = narrow
    last = len(wave.upsample_rates) + 1
    yield from _snake(f"{root}{last}", width)
    yield Tensor(
        f"{root}{last + 1}.conv.weight",
        (1, width, KERNEL),
        Draw(0.035 / math.sqrt(KERNEL * width), zero_sum=True),
    )
    yield Tensor(f"{root}{last + 1}.conv.bias", (1,), Draw(0.002))


def _convolution(
    prefix: str,
    shape: tuple[int, ...],
    fan_in: int,
    gain: float = 1.0,
    output_axis: int = 0,
    zero_sum: bool = True,
) -> Iterator[Tensor]:
    yield Tensor(
        f"{prefix}.weight", shape, Draw(gain / math.sqrt(fan_in), zero_sum=zero_sum, output_axis=output_axis)
    )
    yield Tensor(f"{prefix}.bias", (shape[output_axis],), Draw(BIAS))


def _snake(prefix: str, channels: int) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.alpha", (channels,), Draw(0.2))
    yield Tensor(f"{prefix}.beta", (channels,), Draw(0.2, mean=0.3))
