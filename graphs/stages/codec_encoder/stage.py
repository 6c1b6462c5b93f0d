"""The codec encoder stage of Qwen3.5-Omni: a voice recording to codes.

Source: Mimi (Defossez et al. 2024, arXiv 2410.00037, section 3.3) and HF `MimiModel.encode`; only the first
`num_quantizers` codebooks are used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ....runtime.bundle.errors import AntiphonError
from ....runtime.bundle.specs import TensorSpec
from ...config import CodecEncoderConfig, OmniConfig, RopeConfig
from ...layers.decoder import rotary_tables
from ...stage import Stage, WeightSource, plain, transposed
from .layers import Convolution, EncoderBlock, ResidualQuantiser, TransformerLayer
from .tensors import PREFIX, SIDES, STRIDE, block_places, codebook_counts, last_place, samples_per_frame

LEAST_USAGE = np.float32(1e-5)
"""The smallest divisor of a codebook entry. An entry is stored as a sum of vectors and their number."""


def codec_encoder_stage(config: OmniConfig) -> Stage:
    """The codec encoder of `config`.

    waveform float32 [batch, samples] in -1 .. 1, samples a multiple of samples_per_frame.
    waveform_length int64 [batch]: samples of the recording in each row, at least 1. Later samples are padding
    of any value.
    Outputs are codes int64 [batch, frames, num_quantizers] and the latents that they quantise, float32
    [batch, frames, hidden]. The first ceil(waveform_length / samples_per_frame) frames of a row are valid and
    do not depend on the padding.

    The reference pads the end of a recording before each strided convolution: with zeros, and before the last
    convolution with a copy of the last column. Padding of the waveform cannot replace this, because the
    biases change it; therefore the stage takes the length.

    Raises AntiphonError if the checkpoint has no codec encoder or its sizes do not fit.
    """
    if config.codec_encoder is None:
        raise AntiphonError(
            "This checkpoint has no codec encoder (codec_encoder_config is missing); "
            "choose a voice by its name."
        )
    encoder = config.codec_encoder
    _check(encoder)
    frame = samples_per_frame(encoder)

    def example() -> dict[str, np.ndarray]:
        waveform = np.random.default_rng(0).normal(0, 0.1, (2, 3 * frame)).astype(np.float32)
        return {"waveform": waveform, "waveform_length": np.array([3 * frame, 2 * frame - 1])}

    return Stage(
        name=PREFIX,
        make_module=lambda: CodecEncoder(encoder),
        inputs=(
            TensorSpec("waveform", "float32", ("batch", "samples")),
            TensorSpec("waveform_length", "int64", ("batch",)),
        ),
        outputs=(
            TensorSpec("codes", "int64", ("batch", "frames", encoder.num_quantizers)),
            # Only `antiphon verify` reads the latents: a code can change with the last bit of a latent.
            TensorSpec("latents", "float32", ("batch", "frames", encoder.hidden_size)),
        ),
        states=(),
        example=example,
        weights=lambda checkpoint: _weights(encoder),
        constants={
            "sample_rate": encoder.sampling_rate,
            "samples_per_frame": frame,
            "num_quantizers": encoder.num_quantizers,
        },
        configuration=encoder,
    )


class CodecEncoder(nn.Module):
    """The whole codec encoder; inputs and outputs as in `codec_encoder_stage`."""

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        self.config = config
        ratios = config.upsampling_ratios[::-1]
        self.input = Convolution(1, config.num_filters, config.kernel_size)
        self.blocks = nn.ModuleList(
            EncoderBlock(config, config.num_filters << index, ratio) for index, ratio in enumerate(ratios)
        )
        self.output = Convolution(
            config.num_filters << len(ratios), config.hidden_size, config.last_kernel_size
        )
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.downsample = Convolution(
            config.hidden_size, config.hidden_size, 2 * STRIDE, stride=STRIDE, bias=False
        )
        self.semantic = ResidualQuantiser(config, config.num_semantic_quantizers)
        self.acoustic = ResidualQuantiser(config, config.num_quantizers - config.num_semantic_quantizers)

    def forward(self, waveform: Tensor, waveform_length: Tensor) -> tuple[Tensor, Tensor]:
        x, length = self.input(waveform[:, None]), waveform_length
        for block in self.blocks:
            x, length = block(x, length)
        x = self.output(functional.elu(x)).transpose(1, 2)  # [batch, positions, hidden]
        batch, positions, _ = x.shape
        position = torch.arange(positions, device=x.device)
        rotary = rotary_tables(
            position.float().expand(1, batch, positions),
            RopeConfig(self.config.rope_theta),
            self.config.head_dim,
        )
        mask = window_mask(position, self.config.sliding_window)
        for layer in self.layers:
            x = layer(x, rotary, mask)
        # [batch, frames, hidden]
        latents = self.downsample.convolve(
            _repeat_ends(x, length, self.downsample.context).transpose(1, 2)
        ).transpose(1, 2)
        return torch.stack((*self.semantic(latents), *self.acoustic(latents)), dim=2), latents


def window_mask(position: Tensor, window: int) -> Tensor:
    """Attention mask float [positions, positions]: 0 for visible keys, else minus infinity.

    A query sees its own position and the window - 1 positions before it.
    """
    distance = position[:, None] - position
    return torch.where((distance >= 0) & (distance < window), 0.0, -torch.inf)


def _repeat_ends(x: Tensor, length: Tensor, context: int) -> Tensor:
    """Replicate padding of x [batch, positions, hidden]: `context` copies of the first position before it.

    In each row, a copy of the last valid position replaces position `length`.
    """
    before = x[:, :1]
    shifted = torch.cat((before, x[:, :-1]), dim=1)
    behind = torch.arange(x.shape[1], device=x.device) == length[:, None]
    return torch.cat((before.expand(-1, context, -1), torch.where(behind[..., None], shifted, x)), dim=1)


def _weights(config: CodecEncoderConfig) -> dict[str, WeightSource]:
    """The source of every parameter of CodecEncoder, from the tensors of `tensor_shapes`."""
    sources: dict[str, WeightSource] = {}

    def convolution(name: str, stored: str) -> None:
        sources[f"{name}.weight"] = plain(f"{PREFIX}.encoder.layers.{stored}.conv.weight")
        sources[f"{name}.bias"] = plain(f"{PREFIX}.encoder.layers.{stored}.conv.bias")

    convolution("input", "0")
    for index, (units, downsample) in enumerate(block_places(config)):
        for number, place in enumerate(units):
            convolution(f"blocks.{index}.units.{number}.dilated", f"{place}.block.1")
            convolution(f"blocks.{index}.units.{number}.pointwise", f"{place}.block.3")
        convolution(f"blocks.{index}.downsample", str(downsample))
    convolution("output", str(last_place(config)))
    for index in range(config.num_hidden_layers):
        name, stored = f"layers.{index}", f"{PREFIX}.encoder_transformer.layers.{index}"
        for norm, tensor in (
            ("attention_norm", "input_layernorm"),
            ("feed_forward_norm", "post_attention_layernorm"),
        ):
            sources[f"{name}.{norm}.weight"], sources[f"{name}.{norm}.bias"] = (
                plain(f"{stored}.{tensor}.weight"),
                plain(f"{stored}.{tensor}.bias"),
            )
        parts = tuple(f"{stored}.self_attn.{part}_proj.weight" for part in "qkv")
        sources[f"{name}.query_key_value.weight"] = WeightSource(
            parts, lambda *weights: np.ascontiguousarray(np.concatenate(weights).T)
        )
        sources[f"{name}.attention_output.weight"] = _scaled(
            f"{stored}.self_attn.o_proj.weight", f"{stored}.self_attn_layer_scale.scale"
        )
        sources[f"{name}.expand.weight"] = transposed(f"{stored}.mlp.fc1.weight")
        sources[f"{name}.contract.weight"] = _scaled(
            f"{stored}.mlp.fc2.weight", f"{stored}.mlp_layer_scale.scale"
        )
    sources["downsample.weight"] = plain(f"{PREFIX}.downsample.conv.weight")
    for side, count in zip(SIDES, codebook_counts(config), strict=True):
        stored = f"{PREFIX}.quantizer.{side}_residual_vector_quantizer"
        if config.codebook_dim != config.hidden_size:
            sources[f"{side}.projection.weight"] = WeightSource(
                (f"{stored}.input_proj.weight",), lambda weight: np.ascontiguousarray(weight[:, :, 0].T)
            )
        for index in range(count):
            tensors = (
                f"{stored}.layers.{index}.codebook.embed_sum",
                f"{stored}.layers.{index}.codebook.cluster_usage",
            )
            sources[f"{side}.codebooks.{index}.entries"] = WeightSource(tensors, _entries)
            sources[f"{side}.codebooks.{index}.half_square"] = WeightSource(
                tensors, lambda sums, usage: np.square(_entries(sums, usage)).sum(1) / 2
            )
    return sources


def _scaled(tensor: str, scale: str) -> WeightSource:
    """A Linear weight [out, in] as [in, out], multiplied by the layer scale [out]."""
    return WeightSource((tensor, scale), lambda stored, factor: np.ascontiguousarray(stored.T * factor))


def _entries(sums: np.ndarray, usage: np.ndarray) -> np.ndarray:
    """The entries [size, dim] of a codebook: sums [size, dim] divided by counts [size]."""
    return sums / np.maximum(usage, LEAST_USAGE)[:, None]


def _check(config: CodecEncoderConfig) -> None:
    def expect(condition: bool, sentence: str) -> None:
        if not condition:
            raise AntiphonError(f"codec_encoder_config: {sentence}; correct config.json.")

    heads, keys, quantizers = config.num_attention_heads, config.num_key_value_heads, config.num_quantizers
    expect(
        bool(config.upsampling_ratios) and min(config.upsampling_ratios) >= 1,
        f"upsampling_ratios is {config.upsampling_ratios}, expected positive rates",
    )
    expect(
        config.num_filters % config.compress == 0,
        f"num_filters is {config.num_filters}, expected a multiple of compress ({config.compress})",
    )
    expect(
        heads % keys == 0,
        f"num_attention_heads is {heads}, expected a multiple of num_key_value_heads ({keys})",
    )
    expect(config.head_dim % 2 == 0, f"head_dim is {config.head_dim}, expected an even number")
    expect(
        quantizers > config.num_semantic_quantizers,
        f"num_quantizers is {quantizers}, expected more than num_semantic_quantizers",
    )
