"""The vision encoder: patches of an image or a video to features; in Qwen3-Omni also deepstack features."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.specs import TensorSpec
from ...runtime.frontend.vision.vision_layout import vision_layout
from ..config import OmniConfig, VisionConfig
from ..layers.decoder import Projection
from ..layers.encoder import (
    EncoderLayer,
    LayerNorm,
    Rotation,
    activation_function,
    heads_fit,
    linear_weights,
    plain_weights,
)
from ..stage import Stage, TensorSource, WeightSource, plain

PREFIX = "thinker.visual"
EPSILON = 1e-6


class VisionEncoder(nn.Module):
    """A vision transformer with interpolated learned positions and 2D rotary attention.

    Source: Qwen3OmniMoeVisionEncoder and, without deepstack, Qwen3_5MoeVisionModel (transformers).
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.head_dim = width // config.num_heads
        self.rotary_theta = config.rope_theta
        self.patch_embedding = Projection(patch_dim(config), width, bias=True)
        self.position_table = nn.Parameter(torch.empty(config.num_position_embeddings, width))
        self.blocks = nn.ModuleList(
            EncoderLayer(width, config.num_heads, config.intermediate_size, config.hidden_act, EPSILON)
            for _ in range(config.depth)
        )
        merged = width * config.spatial_merge_size**2
        self.merger = PatchMerger(width, merged, config.out_hidden_size)
        self.deepstack_mergers = nn.ModuleList(
            PatchMerger(merged, merged, config.out_hidden_size) for _ in config.deepstack_visual_indexes
        )
        self.deepstack_indexes = config.deepstack_visual_indexes

    def forward(
        self, pixels: Tensor, position_index: Tensor, position_weight: Tensor, rotary_positions: Tensor
    ) -> tuple[Tensor, ...]:
        """pixels [frames, patches, patch_dim], position_index and position_weight [patches, 4],
        rotary_positions [patches, 2].

        Returns features [visuals, out] and, with deepstack blocks, deepstack [n, visuals, out].
        visuals = frames * patches / merge^2.
        """
        # [patches, 1, width]
        positions = position_weight.unsqueeze(1) @ F.embedding(position_index, self.position_table)
        x = self.patch_embedding(pixels) + positions.squeeze(1)  # [frames, patches, width]
        rotation = self._rotation(rotary_positions, x)
        deepstack = []
        for number, block in enumerate(self.blocks):
            x = block(x, rotation)  # each frame is a batch row, so attention stays within a frame
            if number in self.deepstack_indexes:
                deepstack.append(self.deepstack_mergers[self.deepstack_indexes.index(number)](x))
        features = self.merger(x)
        return (features, torch.stack(deepstack)) if deepstack else (features,)

    def _rotation(self, rotary_positions: Tensor, x: Tensor) -> Rotation:
        """Cosine and sine [patches, head_dim / 2]: first half by patch row, second half by patch column."""
        half = self.head_dim // 2
        frequencies = 1.0 / self.rotary_theta ** (
            torch.arange(0, half, 2, dtype=torch.float32, device=x.device) / half
        )
        angles = (rotary_positions.to(torch.float32).unsqueeze(2) * frequencies).flatten(1)
        return torch.cos(angles).to(x.dtype), torch.sin(angles).to(x.dtype)


class PatchMerger(nn.Module):
    """Merge x merge neighbouring patches to one feature (Qwen3OmniMoeVisionPatchMerger).

    `norm_width` is the width of the norm: one patch in the last merger, all merged patches in a deepstack
    merger.
    """

    def __init__(self, norm_width: int, merged: int, outputs: int) -> None:
        super().__init__()
        self.norm_width, self.merged = norm_width, merged
        self.norm = LayerNorm(norm_width, EPSILON)
        self.up = Projection(merged, merged, bias=True)
        self.down = Projection(merged, outputs, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        # The patches of one feature are neighbours on the patch axis, so reshaping merges them.
        x = self.norm(x.reshape(-1, self.norm_width)).reshape(-1, self.merged)
        return self.down(F.gelu(self.up(x)))


def patch_dim(vision: VisionConfig) -> int:
    """Number of values in one flattened patch: channels * frames * height * width."""
    return vision.in_channels * vision.temporal_patch_size * vision.patch_size**2


def vision_encoder_stage(config: OmniConfig) -> Stage:
    """The stage `vision_encoder`; tensors as in docs/stages.md.

    `runtime.frontend.vision.vision_layout.vision_feeds` makes the inputs.
    Raises AntiphonError if the vision section of the configuration is no encoder of this family.
    """
    vision = config.thinker.vision
    assert vision is not None, "a checkpoint without this encoder has no such stage"
    _check(vision)
    features = TensorSpec("features", "float32", ("visuals", vision.out_hidden_size))
    deepstack = TensorSpec(
        "deepstack", "float32", (len(vision.deepstack_visual_indexes), "visuals", vision.out_hidden_size)
    )
    return Stage(
        name="vision_encoder",
        make_module=lambda: VisionEncoder(vision),
        inputs=(
            TensorSpec("pixels", "float32", ("frames", "patches", patch_dim(vision))),
            TensorSpec("position_index", "int64", ("patches", 4)),
            TensorSpec("position_weight", "float32", ("patches", 4)),
            TensorSpec("rotary_positions", "int64", ("patches", 2)),
        ),
        outputs=(features, deepstack) if vision.deepstack_visual_indexes else (features,),
        states=(),
        example=lambda: _example(vision),
        weights=lambda checkpoint: _weights(vision, checkpoint),
        constants={
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "spatial_merge_size": vision.spatial_merge_size,
            "num_position_embeddings": vision.num_position_embeddings,
        },
        configuration=vision,
    )


def _check(vision: VisionConfig) -> None:
    section = "thinker_config.vision_config"
    heads_fit(section, vision.hidden_size, vision.num_heads, multiple=4)
    activation_function(vision.hidden_act)
    if math.isqrt(vision.num_position_embeddings) ** 2 != vision.num_position_embeddings:
        raise AntiphonError(
            f"{section}: num_position_embeddings is {vision.num_position_embeddings}, "
            "expected a square number; correct config.json."
        )
    indexes = vision.deepstack_visual_indexes
    if len(set(indexes)) != len(indexes) or not all(0 <= index < vision.depth for index in indexes):
        raise AntiphonError(
            f"{section}: deepstack_visual_indexes is {list(indexes)}, expected different blocks in 0 .. "
            f"{vision.depth - 1}; correct config.json."
        )


def _example(vision: VisionConfig) -> dict[str, np.ndarray]:
    """Inputs of three temporal patches, each of 2 x 3 merged patches: no two axes have the same size."""
    grid = (3, 2 * vision.spatial_merge_size, 3 * vision.spatial_merge_size)
    shape = (grid[0], grid[1] * grid[2], patch_dim(vision))
    pixels = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return {
        "pixels": pixels,
        **vision_layout(grid, vision.spatial_merge_size, vision.num_position_embeddings),
    }


def _weights(vision: VisionConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    convolution = f"{PREFIX}.patch_embed.proj"
    weights = {
        # The convolution's stride equals its kernel, so on flattened patches it is a matrix product.
        "patch_embedding.weight": WeightSource(
            (f"{convolution}.weight",), lambda weight: np.ascontiguousarray(weight.reshape(len(weight), -1).T)
        ),
        "patch_embedding.bias": plain(f"{convolution}.bias"),
        "position_table": plain(f"{PREFIX}.pos_embed.weight"),
    }
    for number in range(vision.depth):
        block, tensor = f"blocks.{number}", f"{PREFIX}.blocks.{number}"
        weights |= plain_weights(f"{block}.attention_norm", f"{tensor}.norm1")
        weights |= linear_weights(f"{block}.qkv", f"{tensor}.attn.qkv")
        weights |= linear_weights(f"{block}.attention_output", f"{tensor}.attn.proj")
        weights |= plain_weights(f"{block}.feed_forward_norm", f"{tensor}.norm2")
        weights |= linear_weights(f"{block}.up", f"{tensor}.mlp.linear_fc1")
        weights |= linear_weights(f"{block}.down", f"{tensor}.mlp.linear_fc2")
    weights |= _merger_weights(checkpoint, "merger", f"{PREFIX}.merger")
    for number in range(len(vision.deepstack_visual_indexes)):
        weights |= _merger_weights(
            checkpoint, f"deepstack_mergers.{number}", f"{PREFIX}.merger_list.{number}"
        )
    return weights


def _merger_weights(checkpoint: TensorSource, parameter: str, tensor: str) -> dict[str, WeightSource]:
    """Weight sources of a PatchMerger, under the tensor names of Qwen3.5 or of Qwen3-Omni."""
    qwen3_5 = checkpoint.has(f"{tensor}.linear_fc1.weight")
    norm, up, down = ("norm", "linear_fc1", "linear_fc2") if qwen3_5 else ("ln_q", "mlp.0", "mlp.2")
    weights = plain_weights(f"{parameter}.norm", f"{tensor}.{norm}")
    return (
        weights
        | linear_weights(f"{parameter}.up", f"{tensor}.{up}")
        | linear_weights(f"{parameter}.down", f"{tensor}.{down}")
    )
