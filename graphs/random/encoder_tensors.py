"""Random tensors of the audio and vision encoders."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import AudioConfig, VisionConfig
from .initializers import BIAS, GELU_POWER, Draw, Tensor, embedding, linear, norm


def audio(prefix: str, audio: AudioConfig) -> Iterator[Tensor]:
    width, branch = audio.d_model, 1 / math.sqrt(2 * audio.encoder_layers)
    channels, inputs, bins = audio.downsample_hidden_size, 1, audio.num_mel_bins
    for index in range(1, audio.convolutions + 1):
        yield Tensor(
            f"{prefix}.conv2d{index}.weight", (channels, inputs, 3, 3), Draw(1.5 / math.sqrt(9 * inputs))
        )
        yield Tensor(f"{prefix}.conv2d{index}.bias", (channels,), Draw(BIAS))
        inputs, bins = channels, (bins - 1) // 2 + 1
    yield from linear(f"{prefix}.conv_out", width, channels * bins, gain=1 / math.sqrt(GELU_POWER))
    for layer in range(audio.encoder_layers):
        name = f"{prefix}.layers.{layer}"
        yield from norm(f"{name}.self_attn_layer_norm", width, bias=True)
        for projection in ("q_proj", "k_proj", "v_proj"):
            yield from linear(f"{name}.self_attn.{projection}", width, width, bias=True)
        yield from linear(f"{name}.self_attn.out_proj", width, width, bias=True, gain=2 * branch)
        yield from norm(f"{name}.final_layer_norm", width, bias=True)
        yield from linear(f"{name}.fc1", audio.encoder_ffn_dim, width, bias=True)
        yield from linear(
            f"{name}.fc2", width, audio.encoder_ffn_dim, bias=True, gain=branch / math.sqrt(GELU_POWER)
        )
    yield from norm(f"{prefix}.ln_post", width, bias=True)
    yield from linear(f"{prefix}.proj1", width, width, bias=True)
    yield from linear(f"{prefix}.proj2", audio.output_dim, width, bias=True, gain=1 / math.sqrt(GELU_POWER))


def vision(prefix: str, vision: VisionConfig) -> Iterator[Tensor]:
    width, branch = vision.hidden_size, 1 / math.sqrt(2 * vision.depth)
    patch = (vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    # Neighbouring pixels are similar, so a patch has far fewer independent inputs than values.
    yield Tensor(
        f"{prefix}.patch_embed.proj.weight", (width, *patch), Draw(2.0 / math.sqrt(math.prod(patch)))
    )
    yield Tensor(f"{prefix}.patch_embed.proj.bias", (width,), Draw(BIAS))
    yield embedding(f"{prefix}.pos_embed.weight", vision.num_position_embeddings, width, 0.3)
    for layer in range(vision.depth):
        name = f"{prefix}.blocks.{layer}"
        yield from norm(f"{name}.norm1", width, bias=True)
        yield from linear(f"{name}.attn.qkv", 3 * width, width, bias=True)
        yield from linear(f"{name}.attn.proj", width, width, bias=True, gain=2 * branch)
        yield from norm(f"{name}.norm2", width, bias=True)
        yield from linear(f"{name}.mlp.linear_fc1", vision.intermediate_size, width, bias=True)
        yield from linear(
            f"{name}.mlp.linear_fc2",
            width,
            vision.intermediate_size,
            bias=True,
            gain=branch / math.sqrt(GELU_POWER),
        )
    merged = width * vision.spatial_merge_size**2
    yield from _merger(f"{prefix}.merger", width, merged, vision.out_hidden_size, 1.0)
    for index in range(len(vision.deepstack_visual_indexes)):
        yield from _merger(f"{prefix}.merger_list.{index}", merged, merged, vision.out_hidden_size, 0.5)


def _merger(prefix: str, normed: int, merged: int, outputs: int, gain: float) -> Iterator[Tensor]:
    yield from norm(f"{prefix}.ln_q", normed, bias=True)
    yield from linear(f"{prefix}.mlp.0", merged, merged, bias=True)
    yield from linear(f"{prefix}.mlp.2", outputs, merged, bias=True, gain=gain / math.sqrt(GELU_POWER))
