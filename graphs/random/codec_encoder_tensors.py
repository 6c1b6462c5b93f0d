"""Random tensors of the codec encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import CodecEncoderConfig
from ..stages.codec_encoder.tensors import tensor_shapes
from .initializers import BIAS, NORM_SPREAD, Draw, Tensor, Uniform

LOUDNESS = 6.0
"""Gain of the first convolution: scales a voice with samples of about 0.15 to unit variance."""
ENTRY = 0.15
"""Std of codebook entries. It is small compared to the latents; otherwise some entries are never chosen."""
USAGE = (0.9, 1.1)


def codec_encoder(codec: CodecEncoderConfig) -> Iterator[Tensor]:
    """Every tensor of the codec encoder of `codec`."""
    for name, shape in tensor_shapes(codec).items():
        yield Tensor(name, shape, _draw(name, shape))


def _draw(name: str, shape: tuple[int, ...]) -> Draw | Uniform:
    if name.endswith("cluster_usage"):
        return Uniform(*USAGE)
    if name.endswith("embed_sum"):
        return Draw(ENTRY)
    if name.endswith("layer_scale.scale"):
        return Draw(0.002, mean=0.01)
    if name.endswith("layernorm.weight"):
        return Draw(NORM_SPREAD, mean=1.0)
    if name.endswith(".bias"):
        return Draw(BIAS)
    fan_in = math.prod(shape[1:])
    if name.endswith("encoder.layers.0.conv.weight"):
        return Draw(LOUDNESS / math.sqrt(fan_in))
    # The output of an ELU has a positive mean. zero_sum removes it; otherwise every sound would get the same
    # code.
    return Draw((0.5 if ".block.3." in name else 1.2) / math.sqrt(fan_in), zero_sum=True)
