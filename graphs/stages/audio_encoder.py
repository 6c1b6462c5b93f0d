"""The audio encoder (AuT): log-mel chunks of 1 s to 13 features (3 convolutions) or 7 (4 convolutions)
each."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.specs import TensorSpec
from ...runtime.frontend.audio.audio_layout import audio_layout
from ..config import AudioConfig, OmniConfig
from ..layers.decoder import Projection
from ..layers.encoder import (
    EncoderLayer,
    LayerNorm,
    activation_function,
    fused_linear_weights,
    heads_fit,
    linear_weights,
    plain_weights,
)
from ..layers.weights import QUERY_KEY_VALUE, layers_of_one_input
from ..stage import Stage, TensorSource, WeightSource

PREFIX = "thinker.audio_tower"
EPSILON = 1e-5
MAX_TIMESCALE = 10_000.0
# exp() of it is 0, float16 can hold it, and it is finite: a window without tokens gives no NaN.
MASKED = -3e4


class AudioEncoder(nn.Module):
    """Strided convolutions over each chunk, then a transformer over windows of several chunks.

    Source: Qwen3OmniMoeAudioEncoder (transformers), which has three convolutions. The fourth convolution of
    Qwen3.5-Omni follows TensorRT-Edge-LLM 0.11.
    """

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.width = config.d_model
        channels = config.downsample_hidden_size
        bins = config.num_mel_bins
        for _ in range(config.convolutions):
            bins = (bins - 1) // 2 + 1
        self.convolutions = nn.ModuleList(
            DownsamplingConvolution(channels if number else 1, channels)
            for number in range(config.convolutions)
        )
        self.convolution_output = Projection(channels * bins, config.d_model)
        self.layers = nn.ModuleList(
            EncoderLayer(
                config.d_model,
                config.encoder_attention_heads,
                config.encoder_ffn_dim,
                config.activation_function,
                EPSILON,
            )
            for _ in range(config.encoder_layers)
        )
        self.final_norm = LayerNorm(config.d_model, EPSILON)
        self.projection_in = Projection(config.d_model, config.d_model, bias=True)
        self.activation = activation_function(config.activation_function)
        self.projection_out = Projection(config.d_model, config.output_dim, bias=True)

    def forward(
        self, chunks: Tensor, window_index: Tensor, window_length: Tensor, output_index: Tensor
    ) -> tuple[Tensor]:
        """chunks [chunks, mel, frames] -> features [tokens, output_dim].

        window_index [windows, window_tokens], window_length [windows] and output_index [tokens] as in
        docs/stages.md.
        """
        x = chunks.unsqueeze(1)  # [chunks, 1, mel, frames]
        for convolution in self.convolutions:
            x = F.gelu(convolution(x))  # [chunks, channels, mel / 2, frames / 2], rounded up
        x = self.convolution_output(x.permute(0, 3, 1, 2).flatten(2))  # [chunks, chunk_tokens, width]
        x = x + self._positions(x)  # positions restart in every chunk
        x = F.embedding(window_index, x.flatten(0, 1))  # [windows, window_tokens, width]
        mask = self._mask(window_length, x)
        for layer in self.layers:
            x = layer(x, mask=mask)
        x = F.embedding(output_index, x.flatten(0, 1))  # drops the padding of the windows
        return (self.projection_out(self.activation(self.projection_in(self.final_norm(x)))),)

    def _positions(self, x: Tensor) -> Tensor:
        """Sinusoids [chunk_tokens, width], computed in the graph because their length is dynamic."""
        half = self.width // 2
        frequencies = torch.exp(
            torch.arange(half, dtype=torch.float32, device=x.device) * -(math.log(MAX_TIMESCALE) / (half - 1))
        )
        angles = torch.arange(x.shape[1], dtype=torch.float32, device=x.device).unsqueeze(1) * frequencies
        return torch.cat((torch.sin(angles), torch.cos(angles)), dim=1).to(x.dtype)

    def _mask(self, window_length: Tensor, x: Tensor) -> Tensor:
        """Score mask [windows, 1, window_tokens, window_tokens].

        The query axis is expanded because ONNX Runtime's Attention does not broadcast it.
        """
        tokens = x.shape[1]
        inside = torch.arange(tokens, device=x.device) < window_length.unsqueeze(1)
        return torch.where(inside, 0.0, MASKED).to(x.dtype)[:, None, None, :].expand(-1, -1, tokens, -1)


class DownsamplingConvolution(nn.Module):
    """3 x 3 convolution of stride 2: halves both axes, rounding up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, stride=2, padding=1)


def audio_encoder_stage(config: OmniConfig) -> Stage:
    """The stage `audio_encoder`; tensors as in docs/stages.md.

    `runtime.frontend.audio.audio_layout` makes the inputs.
    Raises AntiphonError if the audio section of the configuration is no encoder of this family.
    """
    audio = config.thinker.audio
    assert audio is not None, "a checkpoint without this encoder has no such stage"
    _check(audio)
    return Stage(
        name="audio_encoder",
        make_module=lambda: AudioEncoder(audio),
        inputs=(
            TensorSpec("chunks", "float32", ("chunks", audio.num_mel_bins, "frames")),
            TensorSpec("window_index", "int64", ("windows", "window_tokens")),
            TensorSpec("window_length", "int64", ("windows",)),
            TensorSpec("output_index", "int64", ("tokens",)),
        ),
        outputs=(TensorSpec("features", "float32", ("tokens", audio.output_dim)),),
        states=(),
        example=lambda: _example(audio),
        weights=lambda checkpoint: _weights(audio, checkpoint),
        constants={
            name: getattr(audio, name)
            for name in ("num_mel_bins", "n_window", "n_window_infer", "convolutions")
        },
        configuration=audio,
    )


def _check(audio: AudioConfig) -> None:
    section = "thinker_config.audio_config"
    heads_fit(section, audio.d_model, audio.encoder_attention_heads)
    activation_function(audio.activation_function)
    if audio.d_model % 2 or audio.d_model < 4:
        raise AntiphonError(
            f"{section}: d_model is {audio.d_model}, expected an even number of 4 or more for the sinusoidal "
            "positions; correct config.json."
        )
    if audio.n_window < 1 or audio.n_window_infer < 2 * audio.n_window:
        raise AntiphonError(
            f"{section}: n_window_infer is {audio.n_window_infer}, "
            f"expected at least 2 * n_window = {2 * audio.n_window} frames; correct config.json."
        )


def _example(audio: AudioConfig) -> dict[str, np.ndarray]:
    """Inputs of two clips in three windows: no two axes have the same size."""
    lengths = (audio.n_window_infer + 3, audio.n_window_infer // 2)
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal((audio.num_mel_bins, length), dtype=np.float32) for length in lengths]
    return audio_layout(clips, audio.n_window, audio.n_window_infer, convolutions=audio.convolutions)[0]


def _weights(audio: AudioConfig, checkpoint: TensorSource) -> dict[str, WeightSource]:
    stored = next(number for number in count() if not checkpoint.has(f"{PREFIX}.conv2d{number + 1}.weight"))
    if stored != audio.convolutions:
        raise AntiphonError(
            f"{checkpoint.path}: {PREFIX} has {stored} convolutions (conv2d1, conv2d2 ...), expected "
            f"{audio.convolutions} of this family; use the config.json that belongs to these weights."
        )
    weights: dict[str, WeightSource] = {}
    for number in range(audio.convolutions):
        weights |= plain_weights(f"convolutions.{number}", f"{PREFIX}.conv2d{number + 1}")
    weights |= linear_weights("convolution_output", f"{PREFIX}.conv_out", bias=False)
    for number in range(audio.encoder_layers):
        layer, tensor = f"layers.{number}", f"{PREFIX}.layers.{number}"
        weights |= plain_weights(f"{layer}.attention_norm", f"{tensor}.self_attn_layer_norm")
        weights |= fused_linear_weights(
            f"{layer}.qkv", layers_of_one_input(checkpoint, f"{tensor}.self_attn", *QUERY_KEY_VALUE)
        )
        weights |= linear_weights(f"{layer}.attention_output", f"{tensor}.self_attn.out_proj")
        weights |= plain_weights(f"{layer}.feed_forward_norm", f"{tensor}.final_layer_norm")
        weights |= linear_weights(f"{layer}.up", f"{tensor}.fc1")
        weights |= linear_weights(f"{layer}.down", f"{tensor}.fc2")
    weights |= plain_weights("final_norm", f"{PREFIX}.ln_post")
    weights |= linear_weights("projection_in", f"{PREFIX}.proj1")
    return weights | linear_weights("projection_out", f"{PREFIX}.proj2")
