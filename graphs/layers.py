"""Building blocks that the decoder stages share: projections, norms, rotary positions, attention and feed-forward layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..plugins.attention.torch_op import attention
from ..plugins.moe.torch_op import moe
from .config import DecoderConfig, RopeConfig


class Projection(nn.Module):
    """x @ weight (+ bias), with weight [in, out]: the layout a matrix multiplication reads without a transposition."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class RootMeanSquareNorm(nn.Module):
    """x / rms(x) * weight over the last axis."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


def rotary_tables(positions: Tensor, rope: RopeConfig, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [batch, tokens, head_dim / 2] of float32 positions [3, batch, tokens] (time, height, width).

    With an mrope_section the frequencies are interleaved: of every three, the second turns with the height and the third with the
    width, up to the section's count (HF Qwen3OmniMoeThinkerTextRotaryEmbedding). Without one all turn with the first axis.
    """
    frequencies = 1.0 / rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if not rope.mrope_section:
        angles = positions[0][..., None] * frequencies
        return angles.cos(), angles.sin()
    axis = torch.zeros(head_dim // 2, dtype=torch.int64)
    for dimension in (1, 2):
        axis[dimension : 3 * rope.mrope_section[dimension] : 3] = dimension
    # One product per axis and a one-hot sum: exact, because the other terms are zeros.
    selected = torch.stack([(axis == dimension).float() * frequencies for dimension in range(3)])  # [3, head_dim / 2]
    angles = (positions[..., None] * selected[:, None, None]).sum(0)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """Rotate x [batch, tokens, heads * dim] by tables [batch, tokens, dim / 2]; within a head, dimension i pairs with i + dim / 2."""
    return torch.onnx.ops.rotary_embedding(x, *rotary, num_heads=heads)


class CachedAttention(nn.Module):
    """Grouped-query attention with normalised queries and keys, over a key-value cache."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.qkv = Projection(config.hidden_size, (self.heads + 2 * self.kv_heads) * self.dim, config.attention_bias)
        self.output = Projection(self.heads * self.dim, config.hidden_size, config.attention_bias)
        self.query_norm = RootMeanSquareNorm(self.dim, config.rms_norm_eps)
        self.key_norm = RootMeanSquareNorm(self.dim, config.rms_norm_eps)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], query_length: Tensor, past_length: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, tokens, hidden]; past [batch, kv_heads, capacity, dim]. Returns y like x, present key, present value."""
        batch, tokens, _ = x.shape
        query, key, value = self.qkv(x).split([self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim], dim=-1)
        query = self.query_norm(query.reshape(batch, tokens, self.heads, self.dim)).reshape(batch, tokens, self.heads * self.dim)
        key = self.key_norm(key.reshape(batch, tokens, self.kv_heads, self.dim)).reshape(batch, tokens, self.kv_heads * self.dim)
        query, key = rotate(query, rotary, self.heads), rotate(key, rotary, self.kv_heads)
        y, present_key, present_value = attention(query, key, value, past_key, past_value, past_length, query_length, self.heads, self.kv_heads)
        return self.output(y), present_key, present_value


class GatedFeedForward(nn.Module):
    """Dense SwiGLU network: down(silu(gate(x)) * up(x)); gate and up are one matrix [hidden, 2 * inter], gate first."""

    def __init__(self, hidden: int, inter: int) -> None:
        super().__init__()
        self.gate_up = Projection(hidden, 2 * inter)
        self.down = Projection(inter, hidden)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(torch.nn.functional.silu(gate) * up)


class SparseFeedForward(nn.Module):
    """Top-k experts, and a shared expert scaled by its sigmoid gate where the configuration has one."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        hidden, inter, experts = config.hidden_size, config.moe_intermediate_size, config.num_experts
        self.top_k, self.normalize = config.num_experts_per_tok, config.norm_topk_prob
        self.router = Projection(hidden, experts)
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * inter, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, inter))
        shared = config.shared_expert_intermediate_size
        self.shared_expert = GatedFeedForward(hidden, shared) if shared else None
        self.shared_expert_gate = Projection(hidden, 1) if shared else None

    def forward(self, x: Tensor) -> Tensor:
        router_logits = self.router(x)
        y = moe(x, router_logits.reshape(-1, router_logits.shape[-1]), self.gate_up, self.down, self.top_k, self.normalize)
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            y = y + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
        return y


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer: attention, then experts or a dense network."""

    def __init__(self, config: DecoderConfig, sparse: bool) -> None:
        super().__init__()
        self.input_norm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = CachedAttention(config)
        self.feed_forward_norm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = SparseFeedForward(config) if sparse else GatedFeedForward(config.hidden_size, config.intermediate_size)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], query_length: Tensor, past_length: Tensor, past_key: Tensor, past_value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, present_key, present_value = self.attention(self.input_norm(x), rotary, query_length, past_length, past_key, past_value)
        x = x + y
        return x + self.feed_forward(self.feed_forward_norm(x)), present_key, present_value
