"""The transformer of Code2Wav: causal sliding-window attention, with the same output for any packet sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...config import Code2WavConfig
from ...layers.streaming_conv import StateTape
from .tensors import head_dim


class TransformerLayer(nn.Module):
    """Pre-norm layer with causal sliding-window attention; x float [batch, frames, hidden] -> the same shape.

    Its states are the keys and values of the last sliding_window - 1 frames before this call, float
    [batch, key_value_heads, sliding_window - 1, head_dim]. The keys are stored without rotation, and each
    call rotates them by their distance from its first frame: positions stay small, so long streams lose no
    precision.
    """

    def __init__(self, config: Code2WavConfig) -> None:
        super().__init__()
        self.config = config
        hidden, inner = config.hidden_size, config.intermediate_size
        self.heads, self.key_value_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            head_dim(config),
        )
        rows, total = self.heads * self.head_dim, (self.heads + 2 * self.key_value_heads) * self.head_dim
        self.attention_norm = nn.Parameter(torch.empty(hidden))
        self.query_key_value = nn.Parameter(torch.empty(hidden, total))
        self.query_key_value_bias = nn.Parameter(torch.empty(total)) if config.attention_bias else None
        self.attention_output = nn.Parameter(torch.empty(rows, hidden))
        self.attention_output_bias = nn.Parameter(torch.empty(hidden)) if config.attention_bias else None
        self.feed_forward_norm = nn.Parameter(torch.empty(hidden))
        self.gate_up = nn.Parameter(torch.empty(hidden, 2 * inner))
        self.down = nn.Parameter(torch.empty(inner, hidden))

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """Heads, frames and head size of the key state and of the value state."""
        return self.key_value_heads, self.config.sliding_window - 1, self.head_dim

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, tape: StateTape) -> Tensor:
        normed = functional.rms_norm(x, (x.shape[2],), self.attention_norm, self.config.rms_norm_eps)
        x = x + self.attend(normed, rotary, visible, tape)
        normed = functional.rms_norm(x, (x.shape[2],), self.feed_forward_norm, self.config.rms_norm_eps)
        gate, up = (normed @ self.gate_up).chunk(2, dim=2)
        return x + (functional.silu(gate) * up) @ self.down

    def attend(self, x: Tensor, rotary: tuple[Tensor, Tensor], visible: Tensor, tape: StateTape) -> Tensor:
        batch, frames = x.shape[0], x.shape[1]
        cosine, sine = rotary  # [window - 1 + frames, head_dim / 2]
        projected = x @ self.query_key_value
        if self.query_key_value_bias is not None:
            projected = projected + self.query_key_value_bias
        projected = projected.reshape(batch, frames, -1, self.head_dim).transpose(1, 2)
        query, key, value = projected.split((self.heads, self.key_value_heads, self.key_value_heads), dim=1)
        key, value = tape.extend(key), tape.extend(value)
        context = self.config.sliding_window - 1
        query = rotate(query, cosine[context:], sine[context:]) * self.head_dim**-0.5
        key = rotate(key, cosine, sine)
        # Query heads are grouped by their key head.
        grouped = query.reshape(batch, self.key_value_heads, -1, frames, self.head_dim)
        scores = grouped @ key[:, :, None].transpose(3, 4) + visible
        mixed = scores.softmax(4) @ value[:, :, None]
        mixed = (
            mixed.reshape(batch, self.heads, frames, self.head_dim)
            .transpose(1, 2)
            .reshape(batch, frames, self.heads * self.head_dim)
        )
        output = mixed @ self.attention_output
        return output if self.attention_output_bias is None else output + self.attention_output_bias


def rotary_tables(frames: int, config: Code2WavConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine, each float [sliding_window - 1 + frames, head_dim / 2].

    Positions count from the first frame of this call; frames of the state have negative positions.
    """
    channels = head_dim(config)
    frequency = config.rope.theta ** (
        -torch.arange(0, channels, 2, dtype=torch.float32, device=device) / channels
    )
    position = torch.arange(1 - config.sliding_window, frames, dtype=torch.float32, device=device)
    angle = position[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of x float [batch, heads, frames, head_dim]; channel c pairs with c + head_dim / 2."""
    first, second = x.chunk(2, dim=3)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=3)


def window_bias(past_length: Tensor, frames: int, window: int) -> Tensor:
    """Attention bias [batch, 1, 1, frames, window - 1 + frames]: 0 for visible keys, else minus infinity.

    A query sees its own frame and the window - 1 frames before it, but no frame before the start of its
    stream. past_length int64 [batch].
    """
    key = torch.arange(1 - window, frames, device=past_length.device)
    distance = torch.arange(frames, device=past_length.device)[:, None] - key
    near = (distance >= 0) & (distance < window)  # [frames, window - 1 + frames]
    begun = key + past_length[:, None] >= 0  # [batch, window - 1 + frames]
    visible = (near & begun[:, None])[:, None, None]
    return torch.where(visible, 0.0, -torch.inf)
