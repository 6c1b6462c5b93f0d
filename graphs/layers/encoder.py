"""Layers of the audio and the vision encoder: layer norm, transformer layer and their weight sources."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...runtime.bundle.errors import AntiphonError
from ..stage import WeightSource, plain, transposed
from .decoder import Projection

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the rotary angles, each [tokens, head_dim / 2]."""


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.epsilon)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer: full attention within a batch row, then a feed-forward network.

    forward: x [batch, tokens, width] -> the same shape. `rotation`, if given, rotates queries and keys.
    `mask` [batch, 1, tokens, tokens], if given, is added to the attention scores.
    """

    def __init__(self, width: int, heads: int, inner: int, activation: str, epsilon: float) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.attention_norm = LayerNorm(width, epsilon)
        self.qkv = Projection(width, 3 * width, bias=True)
        self.attention_output = Projection(width, width, bias=True)
        self.feed_forward_norm = LayerNorm(width, epsilon)
        self.up = Projection(width, inner, bias=True)
        self.activation = activation_function(activation)
        self.down = Projection(inner, width, bias=True)

    def forward(self, x: Tensor, rotation: Rotation | None = None, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention_output(self._attend(self.qkv(self.attention_norm(x)), rotation, mask))
        return x + self.down(self.activation(self.up(self.feed_forward_norm(x))))

    def _attend(self, qkv: Tensor, rotation: Rotation | None, mask: Tensor | None) -> Tensor:
        batch, tokens, width = qkv.shape
        # One transposition for queries, keys and values.
        heads = qkv.reshape(batch, tokens, 3 * self.heads, self.head_dim).transpose(1, 2)
        if rotation is None:
            queries, keys, values = heads.chunk(3, dim=1)
        else:
            turned, values = heads.split((2 * self.heads, self.heads), dim=1)
            queries, keys = rotate(turned, rotation).chunk(2, dim=1)
        # Exported as one standard ONNX Attention node, which a target can replace by its own kernel.
        # [batch, heads, tokens, head_dim]
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(batch, tokens, width // 3)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotary embedding of x [batch, heads, tokens, head_dim]; element i pairs with i + head_dim / 2."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The activation function `name` of a configuration. Raises AntiphonError for an unsupported one."""
    activations = {"gelu": F.gelu, "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh")}
    if name not in activations:
        raise AntiphonError(
            f"Unknown encoder activation {name!r}; expected one of {', '.join(activations)}; "
            "correct config.json."
        )
    return activations[name]


def heads_fit(section: str, width: int, heads: int, multiple: int = 1) -> None:
    """Raise AntiphonError unless `width` is `heads` heads whose size is a multiple of `multiple`."""
    if heads < 1 or width % heads or width // heads % multiple:
        needed = f"heads of a size divisible by {multiple}" if multiple > 1 else "heads of equal size"
        raise AntiphonError(
            f"{section}: a width of {width} cannot be split into {heads} {needed}; correct config.json."
        )


def linear_weights(parameter: str, tensor: str, bias: bool = True) -> dict[str, WeightSource]:
    """Weight sources of the Projection `parameter`, from `tensor`.weight [out, in] and `tensor`.bias."""
    weights = {f"{parameter}.weight": transposed(f"{tensor}.weight")}
    return weights | {f"{parameter}.bias": plain(f"{tensor}.bias")} if bias else weights


def plain_weights(parameter: str, tensor: str) -> dict[str, WeightSource]:
    """Weight sources of a weight and a bias that are used as they are stored (layer norms, convolutions)."""
    return {f"{parameter}.{part}": plain(f"{tensor}.{part}") for part in ("weight", "bias")}


def fused_linear_weights(parameter: str, tensors: tuple[str, ...]) -> dict[str, WeightSource]:
    """Weight sources of one Projection that joins several Linear layers with the same input.

    Its output columns are those of the layers, in the order of `tensors`.
    """
    return {
        f"{parameter}.weight": WeightSource(
            tuple(f"{tensor}.weight" for tensor in tensors),
            lambda *parts: np.ascontiguousarray(np.concatenate(parts).T),
        ),
        f"{parameter}.bias": WeightSource(
            tuple(f"{tensor}.bias" for tensor in tensors), lambda *parts: np.concatenate(parts)
        ),
    }
