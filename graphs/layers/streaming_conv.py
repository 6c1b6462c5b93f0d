"""Convolutions over a stream. The output is the same for any packet size.

Each call takes the next columns and a state: the last columns before them. The state is zero at the start of
a stream. Qwen3-Omni drops the first block of each transposed convolution (symmetric trim). A streaming
decoder keeps that block instead, so its output is delayed by `delay_after` columns. With right trim the delay
is 0, and no mask is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..stage import WeightSource


class StateTape:
    """The past and the present states of one call. The modules read and add them in the same order."""

    def __init__(self, past: Iterable[Tensor]) -> None:
        self._past = iter(past)
        self.present: list[Tensor] = []

    def extend(self, x: Tensor) -> Tensor:
        """Return the next past state and `x`, joined along axis 2; store the last columns as present state.

        x [batch, channels, columns, ...], state [batch, channels, context, ...] -> [batch, channels, context
        + columns, ...].
        """
        past = next(self._past)
        joined = torch.cat((past, x), dim=2)
        self.present.append(joined[:, :, -past.shape[2] :])
        return joined


class CausalConvolution(nn.Module):
    """Causal convolution. Its state is the (kernel - 1) * dilation input columns before the call.

    forward: x float [batch, in_channels, columns] -> float [batch, out_channels, columns].
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, dilation: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.dilation, self.groups = dilation, groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))

    @property
    def state_shape(self) -> tuple[int, int]:
        """Channels and columns of the state."""
        return self.weight.shape[1] * self.groups, (self.weight.shape[2] - 1) * self.dilation

    def forward(self, x: Tensor, tape: StateTape) -> Tensor:
        return functional.conv1d(
            tape.extend(x), self.weight, self.bias, dilation=self.dilation, groups=self.groups
        )


class TransposedConvolution(nn.Module):
    """Transposed convolution with kernel = 2 * stride. Its state is the last input column before the call.

    Output block i has `stride` columns and depends on the input columns i - 1 and i. It is one matrix product
    of both columns, joined, so no overlapping blocks are added.
    forward: x float [batch, in_channels, columns] -> float [batch, out_channels, stride * columns].
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(2 * in_channels, stride * out_channels))
        self.bias = nn.Parameter(torch.empty(stride * out_channels))

    @property
    def state_shape(self) -> tuple[int, int]:
        """Channels and columns of the state."""
        return self.weight.shape[0] // 2, 1

    def forward(self, x: Tensor, tape: StateTape) -> Tensor:
        columns = tape.extend(x).transpose(1, 2)
        pairs = torch.cat((columns[:, :-1], columns[:, 1:]), dim=2)
        return upsample(pairs, self.weight, self.bias, self.stride).transpose(1, 2)


def upsample(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Map every column to `stride` columns by one affine map.

    x float [batch, columns, in], weight [in, stride * out], bias [stride * out] -> [batch, stride * columns,
    out].
    """
    return affine(x, weight, bias).reshape(x.shape[0], stride * x.shape[1], weight.shape[1] // stride)


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight + bias as one Gemm: x [batch, columns, in], weight [in, out] -> [batch, columns, out]."""
    flat = torch.addmm(bias, x.reshape(-1, weight.shape[0]), weight)
    return flat.reshape(x.shape[0], x.shape[1], weight.shape[1])


def delay_after(strides: Sequence[int]) -> int:
    """The delay of a chain of symmetrically trimmed transposed convolutions, in columns of its output.

    Each convolution adds a delay of its stride: (8, 5, 4, 3) gives 8, 45, 184, 555.
    """
    delay = 0
    for stride in strides:
        delay = (delay + 1) * stride
    return delay


def started(past_length: Tensor, frames: int, rate: int, delay: int) -> Tensor | None:
    """A mask: 0 for the first `delay` columns of the stream, 1 for later columns; None if the delay is 0.

    The biases make the delayed columns non-zero, while the unstreamed convolution pads with zeros. The mask
    sets them to zero. past_length int64 [batch] is the number of frames before this call, `rate` the number
    of columns per frame -> float [batch, 1, rate * frames].
    """
    if delay == 0:
        return None
    column = torch.arange(rate * frames, device=past_length.device) + rate * past_length[:, None]
    return (column >= delay).to(torch.float32)[:, None]


def transposed_convolution_weight(tensor: str) -> WeightSource:
    """The weight of TransposedConvolution, from a stored ConvTranspose1d weight [in, out, 2 * stride]."""

    def assemble(weight: np.ndarray) -> np.ndarray:
        stride = weight.shape[2] // 2
        # The weights of input column i - 1, then those of input column i.
        return np.concatenate((_columns(weight[:, :, stride:]), _columns(weight[:, :, :stride])))

    return WeightSource((tensor,), assemble)


def upsampling_weight(tensor: str) -> WeightSource:
    """The weight of `upsample`, from a stored ConvTranspose1d weight [in, out, stride] (kernel = stride)."""
    return WeightSource((tensor,), _columns)


def repeated_bias(tensor: str, stride: int) -> WeightSource:
    """The bias [stride * out] of `upsample` and TransposedConvolution, from a stored bias [out]."""
    return WeightSource((tensor,), lambda bias: np.tile(bias, stride))


def _columns(weight: np.ndarray) -> np.ndarray:
    """[in, out, taps] -> [in, taps * out], so that the product reshapes to one column per tap."""
    return np.ascontiguousarray(weight.transpose(0, 2, 1)).reshape(weight.shape[0], -1)
