"""Code2Wav as a streaming module: codec frames to a waveform, with the same samples for any packet sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ....runtime.bundle.specs import StateSpec
from ...config import Code2WavConfig
from ...layers.streaming_conv import (
    CausalConvolution,
    StateTape,
    TransposedConvolution,
    affine,
    delay_after,
    started,
    upsample,
)
from .tensors import DILATIONS, KERNEL, latent_dim
from .transformer import TransformerLayer, rotary_tables, window_bias


class Code2Wav(nn.Module):
    """The whole decoder; inputs, outputs and states as in `code2wav_stage`.

    `code_embedding` holds all codebooks, one after another. Those of a split quantiser are already projected
    to quantizer_dim. The input and output projections of the transformer are merged into the weights of the
    layers before and after it (see weights.py).
    """

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        hidden, latent, rates = config.hidden_size, latent_dim(config), config.upsample_rates
        split = config.codebook_dim > 0
        self.code_embedding = nn.Parameter(
            torch.empty(
                config.num_quantizers * config.codebook_size, config.quantizer_dim if split else hidden
            )
        )
        self.pre_conv = (
            CausalConvolution(config.quantizer_dim, hidden, config.pre_conv_kernel) if split else None
        )
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.Parameter(torch.empty(hidden))
        self.upsampling = nn.ModuleList(
            UpsamplingBlock(latent if index else hidden, latent, ratio)
            for index, ratio in enumerate(config.upsampling_ratios)
        )
        self.decoder_input = CausalConvolution(latent, config.decoder_dim, KERNEL)
        self.decoder = nn.ModuleList(
            DecoderBlock(config.decoder_dim >> index, config.decoder_dim >> (index + 1), stride)
            for index, stride in enumerate(rates)
        )
        self.output_activation = SnakeBeta(config.decoder_dim >> len(rates))
        self.output = CausalConvolution(config.decoder_dim >> len(rates), 1, KERNEL)

    def states(self) -> tuple[StateSpec, ...]:
        """The states, in the order in which `forward` reads them."""
        specs = []
        for name, module in self.named_modules():
            if isinstance(module, TransformerLayer):
                specs += [
                    StateSpec(f"{name}.{kind}", "window", "float32", ("batch", *module.state_shape))
                    for kind in ("key", "value")
                ]
            elif isinstance(module, CausalConvolution | TransposedConvolution):
                specs.append(StateSpec(name, "conv", "float32", ("batch", *module.state_shape)))
        return tuple(specs)

    def forward(self, codes: Tensor, past_length: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        config, tape, frames = self.config, StateTape(past), codes.shape[1]
        table_start = config.codebook_size * torch.arange(config.num_quantizers, device=codes.device)
        # [batch, frames, codebooks, hidden or quantizer_dim]
        embedded = functional.embedding(codes + table_start, self.code_embedding)
        if self.pre_conv is None:
            x = embedded.mean(2)
        else:
            x = self.pre_conv(embedded.sum(2).transpose(1, 2), tape).transpose(1, 2)
        rotary = rotary_tables(frames, config, codes.device)
        visible = window_bias(past_length, frames, config.sliding_window)
        for layer in self.layers:
            x = layer(x, rotary, visible, tape)
        x = functional.rms_norm(x, (config.hidden_size,), self.norm, config.rms_norm_eps)
        rate = 1
        for block, ratio in zip(self.upsampling, config.upsampling_ratios, strict=True):
            x = block(x, tape)
            rate *= ratio
        x = self.decoder_input(x.transpose(1, 2), tape)  # from here [batch, channels, columns]
        mask = None
        for index, block in enumerate(self.decoder, start=1):
            rate *= config.upsample_rates[index - 1]
            mask = started(past_length, frames, rate, decoder_delay(config, index))
            x = block(x, mask, tape)
        audio = self.output(self.output_activation(x), tape).clamp(-1.0, 1.0)
        return masked(audio, mask)[:, 0], *tape.present


class UpsamplingBlock(nn.Module):
    """Upsampling by `ratio`, then a ConvNeXt block; x [batch, columns, in] -> [batch, ratio * columns,
    hidden]."""

    def __init__(self, in_channels: int, hidden: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.upsample_weight = nn.Parameter(torch.empty(in_channels, ratio * hidden))
        self.upsample_bias = nn.Parameter(torch.empty(ratio * hidden))
        self.depthwise = CausalConvolution(hidden, hidden, KERNEL, groups=hidden)
        self.norm_weight = nn.Parameter(torch.empty(hidden))
        self.norm_bias = nn.Parameter(torch.empty(hidden))
        self.expand = nn.Parameter(torch.empty(hidden, 4 * hidden))
        self.expand_bias = nn.Parameter(torch.empty(4 * hidden))
        self.contract = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.contract_bias = nn.Parameter(torch.empty(hidden))

    def forward(self, x: Tensor, tape: StateTape) -> Tensor:
        x = upsample(x, self.upsample_weight, self.upsample_bias, self.ratio)
        mixed = self.depthwise(x.transpose(1, 2), tape).transpose(1, 2)
        mixed = functional.layer_norm(mixed, (x.shape[2],), self.norm_weight, self.norm_bias, 1e-6)
        mixed = functional.gelu(affine(mixed, self.expand, self.expand_bias))
        return x + affine(mixed, self.contract, self.contract_bias)


class DecoderBlock(nn.Module):
    """Upsampling by `stride`, then residual units; x [batch, in, columns] -> [batch, out, stride * columns].

    `mask` has the rate of the output. The input is already masked. SnakeBeta maps 0 to 0, so it is enough to
    mask the sum after each residual unit.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.activation = SnakeBeta(in_channels)
        self.transposed = TransposedConvolution(in_channels, out_channels, stride)
        self.units = nn.ModuleList(ResidualUnit(out_channels, dilation) for dilation in DILATIONS)

    def forward(self, x: Tensor, mask: Tensor | None, tape: StateTape) -> Tensor:
        x = masked(self.transposed(self.activation(x), tape), mask)
        for unit in self.units:
            x = masked(unit(x, tape), mask)
        return x


class ResidualUnit(nn.Module):
    """x + pointwise(snake(dilated(snake(x)))); x float [batch, channels, columns] -> the same shape."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first_activation = SnakeBeta(channels)
        self.dilated = CausalConvolution(channels, channels, KERNEL, dilation)
        self.second_activation = SnakeBeta(channels)
        self.pointwise = nn.Parameter(torch.empty(channels, channels, 1))
        self.pointwise_bias = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor, tape: StateTape) -> Tensor:
        mixed = self.second_activation(self.dilated(self.first_activation(x), tape))
        return x + functional.conv1d(mixed, self.pointwise, self.pointwise_bias)


class SnakeBeta(nn.Module):
    """x + sin(alpha x)^2 / beta, per channel of x [batch, channels, columns] (Ziyin et al., arXiv
    2006.08195).

    The parameters are alpha and 1 / beta; a checkpoint stores log(alpha) and log(beta).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.empty(channels, 1))
        self.magnitude = nn.Parameter(torch.empty(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(self.frequency * x)
        return x + self.magnitude * (wave * wave)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x * mask`, or `x` if there is no mask; see streaming_conv.started."""
    return x if mask is None else x * mask


def decoder_delay(config: Code2WavConfig, blocks: int) -> int:
    """The delay of the first `blocks` decoder blocks, in output columns; 0 without symmetric trim."""
    return delay_after(config.upsample_rates[:blocks]) if config.symmetric_trim else 0
