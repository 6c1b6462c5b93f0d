"""Layers of the codec encoder: causal convolution, sliding-window transformer layer, residual quantiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import CodecEncoderConfig
from ...layers.decoder import Projection, rotate

Rotary = tuple[Tensor, Tensor]
"""Cosine and sine, each [batch, positions, head_dim / 2]."""


class Convolution(nn.Module):
    """Causal convolution with zero padding.

    x float [batch, in_channels, columns] -> float [batch, out_channels, columns / stride].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None

    @property
    def context(self) -> int:
        """Number of padding columns before the first input column."""
        return (self.weight.shape[2] - 1) * self.dilation + 1 - self.stride

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(functional.pad(x, (self.context, 0)))

    def convolve(self, x: Tensor) -> Tensor:
        """`forward` for an x that already has `context` columns before its first one."""
        return functional.conv1d(x, self.weight, self.bias, stride=self.stride, dilation=self.dilation)


class ResidualUnit(nn.Module):
    """x + pointwise(elu(dilated(elu(x)))), two convolutions; x [batch, channels, columns] -> the same.

    The dilated convolution reduces the channels to `narrow`.
    """

    def __init__(self, channels: int, narrow: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dilated = Convolution(channels, narrow, kernel, dilation=dilation)
        self.pointwise = Convolution(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(functional.elu(self.dilated(functional.elu(x))))


class EncoderBlock(nn.Module):
    """Residual units, then ELU and a convolution of stride `ratio` that doubles the channels.

    x float [batch, channels, columns] and its length int64 [batch] -> float [batch, 2 * channels, columns /
    ratio] and its length.
    """

    def __init__(self, config: CodecEncoderConfig, channels: int, ratio: int) -> None:
        super().__init__()
        dilations = [config.dilation_growth_rate**unit for unit in range(config.num_residual_layers)]
        self.units = nn.ModuleList(
            ResidualUnit(channels, channels // config.compress, config.residual_kernel_size, dilation)
            for dilation in dilations
        )
        self.downsample = Convolution(channels, 2 * channels, 2 * ratio, stride=ratio)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        for unit in self.units:
            x = unit(x)
        # The reference pads the end of a recording with zeros before every strided convolution. Here, biases
        # made the columns after the recording non-zero, so they are set to zero.
        inside = torch.arange(x.shape[2], device=x.device) < length[:, None]
        x = functional.elu(x) * inside[:, None].to(x.dtype)
        return self.downsample(x), (length + (self.downsample.stride - 1)) // self.downsample.stride


class TransformerLayer(nn.Module):
    """Pre-norm layer with causal sliding-window attention; x float [batch, positions, hidden] -> the same.

    The weights include the layer scales.
    """

    def __init__(self, config: CodecEncoderConfig) -> None:
        super().__init__()
        hidden, self.head_dim = config.hidden_size, config.head_dim
        self.heads, self.key_value_heads = config.num_attention_heads, config.num_key_value_heads
        self.attention_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.query_key_value = Projection(hidden, (self.heads + 2 * self.key_value_heads) * self.head_dim)
        self.attention_output = Projection(self.heads * self.head_dim, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden, config.norm_eps)
        self.expand = Projection(hidden, config.intermediate_size)
        self.contract = Projection(config.intermediate_size, hidden)

    def forward(self, x: Tensor, rotary: Rotary, mask: Tensor) -> Tensor:
        x = x + self.attend(self.attention_norm(x), rotary, mask)
        return x + self.contract(functional.gelu(self.expand(self.feed_forward_norm(x))))

    def attend(self, x: Tensor, rotary: Rotary, mask: Tensor) -> Tensor:
        """Attention of x; `mask` float [positions, positions] is added to the scores."""
        batch, positions, _ = x.shape
        sizes = [heads * self.head_dim for heads in (self.heads, self.key_value_heads, self.key_value_heads)]
        query, key, value = self.query_key_value(x).split(sizes, dim=2)
        query, key = rotate(query, rotary, self.heads), rotate(key, rotary, self.key_value_heads)
        query, key, value = (
            part.reshape(batch, positions, -1, self.head_dim).transpose(1, 2) for part in (query, key, value)
        )
        if self.heads != self.key_value_heads:
            key, value = (
                part.repeat_interleave(self.heads // self.key_value_heads, dim=1) for part in (key, value)
            )
        # [batch, heads, positions, head_dim]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.attention_output(mixed.transpose(1, 2).reshape(batch, positions, sizes[0]))


class ResidualQuantiser(nn.Module):
    """Residual vector quantiser: each codebook quantises the residual of the codebooks before it.

    latents float [batch, frames, hidden] -> codes int64 [batch, frames] of each codebook.
    """

    def __init__(self, config: CodecEncoderConfig, codebooks: int) -> None:
        super().__init__()
        self.projection = (
            Projection(config.hidden_size, config.codebook_dim)
            if config.codebook_dim != config.hidden_size
            else None
        )
        self.codebooks = nn.ModuleList(
            Codebook(config.codebook_size, config.codebook_dim) for _ in range(codebooks)
        )

    def forward(self, latents: Tensor) -> list[Tensor]:
        rest, chosen = latents if self.projection is None else self.projection(latents), []
        for codebook in self.codebooks:
            codes, nearest = codebook(rest)
            rest = rest - nearest
            chosen.append(codes)
        return chosen


class Codebook(nn.Module):
    """The nearest entry to each vector.

    x float [batch, frames, dim] -> index int64 [batch, frames] and entry [batch, frames, dim].
    The entry e with the smallest |x - e|^2 is the one with the largest x.e - |e|^2 / 2: one matrix product.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.entries = nn.Parameter(torch.empty(size, dim))
        self.half_square = nn.Parameter(torch.empty(size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = (x @ self.entries.T - self.half_square).argmax(2)
        return codes, functional.embedding(codes, self.entries)
