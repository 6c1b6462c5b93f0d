"""Tensors of the codec encoder: how the ones that its stage reads are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import CodecEncoderConfig
from ..stages.codec_encoder.tensors import tensor_shapes
from .initializers import BIAS, NORM_SPREAD, Draw, Tensor, Uniform

LOUDNESS = 6.0
"""Brings a voice, whose samples are of about 0.15, to unit variance."""
ENTRY = 0.15
"""Std of a codebook's entries, small beside what is quantised: only so are all of them chosen."""
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
    # An ELU leaves a positive mean, which must not become the same code for every sound.
    return Draw((0.5 if ".block.3." in name else 1.2) / math.sqrt(fan_in), zero_sum=True)
