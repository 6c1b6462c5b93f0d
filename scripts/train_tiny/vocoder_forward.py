"""Code2Wav's forward pass for training: whole crops with empty states.

It equals the stage's module and is several times as fast on a CPU. The columns above the frame rate are
computed in bfloat16, where convolutions take a third of the time. Data gradients of dilated convolutions are
computed as convolutions, because oneDNN's own are slow. SnakeBeta is one loop in each direction if a C++
compiler is found.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...graphs.layers.streaming_conv import CausalConvolution, StateTape, TransposedConvolution
from ...graphs.stages.code2wav.module import Code2Wav, DecoderBlock, ResidualUnit, SnakeBeta
from ...graphs.stages.code2wav.transformer import rotary_tables, window_bias


def hidden_frames(module: Code2Wav, embedded: Tensor) -> Tensor:
    """The transformer over whole streams: float [batch, frames, quantizer_dim] -> float [batch, frames,
    hidden]."""
    config, frames, batch = module.config, embedded.shape[1], embedded.shape[0]
    assert module.pre_conv is not None
    tape = StateTape(_zeros(module, batch, ("pre_conv", "layers.")))
    x = module.pre_conv(embedded.transpose(1, 2), tape).transpose(1, 2)
    rotary = rotary_tables(frames, config, x.device)
    visible = window_bias(torch.zeros(batch, dtype=torch.long), frames, config.sliding_window)
    for layer in module.layers:
        x = layer(x, rotary, visible, tape)
    return F.rms_norm(x, (config.hidden_size,), module.norm, config.rms_norm_eps)


def waveform(module: Code2Wav, hidden: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The decoder from zero states: hidden float [batch, frames, hidden] -> audio float32 [batch, samples].

    It does not clamp, so that gradients are kept.
    """
    tape = StateTape(_zeros(module, hidden.shape[0], ("upsampling.",)))
    x = hidden
    for block in module.upsampling:
        x = block(x, tape)
    x = _convolve(module.decoder_input, x.transpose(1, 2)).to(dtype)
    for block in module.decoder:
        assert isinstance(block, DecoderBlock)
        x = _block(block, x)
    return _convolve(module.output, _snake(module.output_activation, x).float())[:, 0]


def _zeros(module: Code2Wav, batch: int, prefixes: tuple[str, ...]) -> list[Tensor]:
    return [
        torch.zeros(batch, *(int(size) for size in spec.shape[1:]))
        for spec in module.states()
        if spec.name.startswith(prefixes)
    ]


def _block(block: DecoderBlock, x: Tensor) -> Tensor:
    x = _transpose(block.transposed, _snake(block.activation, x))
    for unit in block.units:
        assert isinstance(unit, ResidualUnit)
        x = _unit(unit, x)
    return x


def _unit(unit: ResidualUnit, x: Tensor) -> Tensor:
    mixed = _snake(unit.second_activation, _convolve(unit.dilated, _snake(unit.first_activation, x)))
    return _Pointwise.apply(x, mixed, unit.pointwise[:, :, 0].to(x.dtype), unit.pointwise_bias.to(x.dtype))


def _transpose(layer: TransposedConvolution, x: Tensor) -> Tensor:
    """graphs.layers.streaming_conv.TransposedConvolution with columns last: [batch, in, columns] -> [batch,
    out, stride * columns]."""
    pairs = torch.cat((F.pad(x, (1, 0))[:, :, :-1], x), dim=1)
    y = layer.weight.to(x.dtype).T @ pairs + layer.bias.to(x.dtype)[:, None]  # [batch, stride * out, columns]
    return y.unflatten(1, (layer.stride, -1)).permute(0, 2, 3, 1).flatten(2)


def _convolve(layer: CausalConvolution, x: Tensor) -> Tensor:
    return _Convolution.apply(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype), layer.dilation)


def _snake(layer: SnakeBeta, x: Tensor) -> Tensor:
    return _Snake.apply(x, layer.frequency, layer.magnitude)


class _Convolution(torch.autograd.Function):
    """Causal convolution from a zero state, without groups.

    x [batch, in, columns], weight [out, in, taps], bias [out] -> [batch, out, columns].
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        padded = F.pad(x, ((weight.shape[2] - 1) * dilation, 0))
        ctx.save_for_backward(padded, weight)
        ctx.dilation = dilation
        return F.conv1d(padded, weight, bias, dilation=dilation)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        padded, weight = ctx.saved_tensors
        gradient, dilation = gradient.contiguous(), ctx.dilation
        ahead = F.pad(gradient, (0, (weight.shape[2] - 1) * dilation))
        of_x = F.conv1d(ahead, weight.flip(2).transpose(0, 1).contiguous(), dilation=dilation)
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, padded, weight, [len(weight)], [1], [0], [dilation], False, [0], 1, [False, True, True]
        )
        return of_x, of_weight, of_bias, None


class _Pointwise(torch.autograd.Function):
    """x + weight @ mixed + bias; x and mixed [batch, channels, columns], weight [channels, channels], bias
    [channels]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mixed: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(mixed, weight)
        return (weight @ mixed).add_(x).add_(bias[:, None])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        mixed, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_weight = (gradient @ mixed.transpose(1, 2)).float().sum(0).to(weight.dtype)
        return gradient, weight.T @ gradient, of_weight, gradient.sum((0, 2))


class _Snake(torch.autograd.Function):
    """SnakeBeta of x [batch, channels, columns] with frequency and magnitude float32 [channels, 1];
    computed in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, frequency: Tensor, magnitude: Tensor) -> Tensor:
        # Rows [batch * channels, columns] have one rank for all layers, so that one loop, compiled for any
        # size, serves all.
        rows = x.flatten(0, 1)
        frequencies, magnitudes = (
            parameter.detach().repeat(len(x), 1) for parameter in (frequency, magnitude)
        )
        ctx.save_for_backward(rows, frequencies, magnitudes)
        return _loops()[0](rows, frequencies, magnitudes).view(x.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        rows, frequencies, magnitudes = ctx.saved_tensors
        of_x, of_frequency, of_magnitude = _loops()[1](gradient.flatten(0, 1), rows, frequencies, magnitudes)
        batch, channels = gradient.shape[:2]
        of_frequency, of_magnitude = (
            parts.view(batch, channels, 1).sum(0) for parts in (of_frequency, of_magnitude)
        )
        return of_x.view(gradient.shape), of_frequency, of_magnitude


def _snake_forward(x: Tensor, frequency: Tensor, magnitude: Tensor) -> Tensor:
    """x [rows, columns], frequency and magnitude [rows, 1] -> [rows, columns]."""
    wide = x.float()
    wave = torch.sin(frequency * wide)
    return (wide + magnitude * (wave * wave)).to(x.dtype)


def _snake_backward(
    gradient: Tensor, x: Tensor, frequency: Tensor, magnitude: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x [rows, columns], frequency and magnitude [rows]."""
    wide, outer = x.float(), gradient.float()
    angle = 2 * frequency * wide
    slope = outer * magnitude * torch.sin(angle)  # the derivative of sin(u)^2 is sin(2 u)
    return (
        (outer + slope * frequency).to(x.dtype),
        (slope * wide).sum(1),
        (outer * (0.5 - 0.5 * torch.cos(angle))).sum(1),
    )


@cache
def _loops() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Both directions of SnakeBeta, compiled if possible."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        return _snake_forward, _snake_backward
    return torch.compile(_snake_forward, dynamic=True), torch.compile(_snake_backward, dynamic=True)


def keep_positive(module: nn.Module, least: float = 0.02) -> None:
    """Keep the parameters that a checkpoint stores as logarithms above `least`."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, SnakeBeta):
                part.frequency.clamp_(min=least)
                part.magnitude.clamp_(min=least)
