"""Layers of the decoder stages: norm, rotary embedding, attention, Gated DeltaNet, feed-forward network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ...plugins.attention.torch_op import attention
from ...plugins.causal_conv_state.torch_op import causal_conv_state
from ...plugins.gated_delta_rule.torch_op import gated_delta_rule
from ...plugins.moe.torch_op import moe
from ..config import DecoderConfig, LinearAttentionConfig, RopeConfig


class Projection(nn.Module):
    """x @ weight (+ bias) with weight [in, out], so that the matrix product needs no transposition."""

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
    """Cosine and sine [batch, tokens, rotary / 2] of float32 positions [3, batch, tokens] (time, height,
    width).

    `rotary` is the number of rotated dimensions of a head: `rope.dim(head_dim)`.
    Without an mrope_section, all frequencies use the first axis of `positions`. With one, the axes are
    interleaved: of every three frequencies the second uses the height and the third the width, up to the
    count of the section.
    Source: HF Qwen3OmniMoeThinkerTextRotaryEmbedding, Qwen3_5MoeTextRotaryEmbedding.
    """
    rotary = rope.dim(head_dim)
    frequencies = 1.0 / rope.theta ** (torch.arange(0, rotary, 2, dtype=torch.float32) / rotary)
    if not rope.mrope_section:
        angles = positions[0][..., None] * frequencies
        return angles.cos(), angles.sin()
    axis = torch.zeros(rotary // 2, dtype=torch.int64)
    for dimension in (1, 2):
        axis[dimension : 3 * rope.mrope_section[dimension] : 3] = dimension
    # One product per axis, then the sum over axes: exact, because all other terms are zero.
    # [3, rotary / 2]
    selected = torch.stack([(axis == dimension).float() * frequencies for dimension in range(3)])
    angles = (positions[..., None] * selected[:, None, None]).sum(0)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor], heads: int) -> Tensor:
    """Rotate the first n dimensions of each head of x [batch, tokens, heads * dim].

    `rotary`: cosine and sine [batch, tokens, n / 2]. Dimension i forms a pair with dimension i + n / 2.
    """
    turning = 2 * rotary[0].shape[-1]
    # The op reads 0 as "all dimensions".
    return torch.onnx.ops.rotary_embedding(
        x, *rotary, num_heads=heads, rotary_embedding_dim=0 if turning * heads == x.shape[-1] else turning
    )


class CachedAttention(nn.Module):
    """Grouped-query attention with normalised queries and keys, over a key-value cache.

    The columns of the input projection are queries, keys and values. With `gated_attention`, gates follow,
    and the attention output is multiplied by sigmoid(gates). Source: HF Qwen3_5MoeAttention, which stores the
    gate of each head next to its query.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim, self.gated = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.gated_attention,
        )
        queries, keys = self.heads * self.dim, self.kv_heads * self.dim
        self.sizes = [queries, keys, keys, queries] if self.gated else [queries, keys, keys]
        self.qkv = Projection(config.hidden_size, sum(self.sizes), config.attention_bias)
        self.output = Projection(self.heads * self.dim, config.hidden_size, config.attention_bias)
        self.query_norm = RootMeanSquareNorm(self.dim, config.rms_norm_eps)
        self.key_norm = RootMeanSquareNorm(self.dim, config.rms_norm_eps)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        query_length: Tensor,
        past_length: Tensor,
        past_key: Tensor,
        past_value: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, tokens, hidden]; past [batch, kv_heads, capacity, dim].

        Returns y like x, present key, present value.
        """
        batch, tokens, _ = x.shape
        query, key, value, *gate = self.qkv(x).split(self.sizes, dim=-1)
        query = self.query_norm(query.reshape(batch, tokens, self.heads, self.dim)).reshape(
            batch, tokens, self.heads * self.dim
        )
        key = self.key_norm(key.reshape(batch, tokens, self.kv_heads, self.dim)).reshape(
            batch, tokens, self.kv_heads * self.dim
        )
        query, key = rotate(query, rotary, self.heads), rotate(key, rotary, self.kv_heads)
        y, present_key, present_value = attention(
            query, key, value, past_key, past_value, past_length, query_length, self.heads, self.kv_heads
        )
        if self.gated:
            y = y * torch.sigmoid(gate[0])
        return self.output(y), present_key, present_value


class GatedDeltaNet(nn.Module):
    """A short causal convolution, then linear attention by the gated delta rule (HF Qwen3_5MoeGatedDeltaNet).

    The columns of the input projection are queries, keys and values, then the output gate z, then b and a of
    each value head.
    """

    def __init__(self, config: DecoderConfig, linear: LinearAttentionConfig) -> None:
        super().__init__()
        self.key_heads, self.value_heads, self.value_dim = (
            linear.linear_num_key_heads,
            linear.linear_num_value_heads,
            linear.linear_value_head_dim,
        )
        self.sizes = [linear.conv_size, linear.value_size, self.value_heads, self.value_heads]
        self.parts = [linear.key_size, linear.key_size, linear.value_size]
        self.input = Projection(config.hidden_size, sum(self.sizes))
        self.conv = nn.Parameter(torch.empty(linear.conv_size, 1, linear.linear_conv_kernel_dim))
        self.dt_bias = nn.Parameter(torch.empty(self.value_heads))
        self.decay_scale = nn.Parameter(torch.empty(self.value_heads))
        self.norm = RootMeanSquareNorm(self.value_dim, config.rms_norm_eps)
        self.output = Projection(linear.value_size, config.hidden_size)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        query_length: Tensor,
        past_length: Tensor,
        past_conv: Tensor,
        past_recurrent: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [batch, tokens, hidden]; past_conv [batch, kernel - 1, channels]; past_recurrent [batch,
        value_heads, key_dim, value_dim].

        `rotary` and `past_length` are unused. Returns y like x and the present states.
        """
        batch, tokens, _ = x.shape
        mixed, z, b, a = self.input(x).split(self.sizes, dim=-1)
        mixed, present_conv = causal_conv_state(mixed, self.conv, past_conv, query_length)
        query, key, value = mixed.split(self.parts, dim=-1)
        y, present_recurrent = gated_delta_rule(
            query,
            key,
            value,
            a,
            b,
            self.dt_bias,
            self.decay_scale,
            past_recurrent,
            query_length,
            self.key_heads,
            self.value_heads,
        )
        y = self.norm(y.reshape(batch, tokens, self.value_heads, self.value_dim)).reshape(
            batch, tokens, self.value_heads * self.value_dim
        )
        return self.output(y * torch.nn.functional.silu(z)), present_conv, present_recurrent


class GatedFeedForward(nn.Module):
    """Dense SwiGLU network: down(silu(gate(x)) * up(x)). `gate_up` [hidden, 2 * inter] is gate, then up."""

    def __init__(self, hidden: int, inter: int) -> None:
        super().__init__()
        self.gate_up = Projection(hidden, 2 * inter)
        self.down = Projection(inter, hidden)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(torch.nn.functional.silu(gate) * up)


class SparseFeedForward(nn.Module):
    """Top-k experts and, if the configuration has one, a shared expert scaled by its sigmoid gate."""

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
        y = moe(
            x,
            router_logits.reshape(-1, router_logits.shape[-1]),
            self.gate_up,
            self.down,
            self.top_k,
            self.normalize,
        )
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            y = y + torch.sigmoid(self.shared_expert_gate(x)) * self.shared_expert(x)
        return y


class DecoderLayer(nn.Module):
    """Pre-norm decoder layer: cached attention or Gated DeltaNet, then experts or a dense network."""

    def __init__(
        self, config: DecoderConfig, sparse: bool, linear: LinearAttentionConfig | None = None
    ) -> None:
        super().__init__()
        self.input_norm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = CachedAttention(config) if linear is None else GatedDeltaNet(config, linear)
        self.feed_forward_norm = RootMeanSquareNorm(config.hidden_size, config.rms_norm_eps)
        self.feed_forward = (
            SparseFeedForward(config)
            if sparse
            else GatedFeedForward(config.hidden_size, config.intermediate_size)
        )

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        query_length: Tensor,
        past_length: Tensor,
        first_state: Tensor,
        second_state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments as in CachedAttention or GatedDeltaNet. Returns y like x and the two present states.

        `decoder_specs.decoder_states` describes the states.
        """
        y, first_state, second_state = self.attention(
            self.input_norm(x), rotary, query_length, past_length, first_state, second_state
        )
        x = x + y
        return x + self.feed_forward(self.feed_forward_norm(x)), first_state, second_state


def decoder_layers(config: DecoderConfig) -> nn.ModuleList:
    """The layers of a decoder of `config`."""
    kinds = [
        (config.is_sparse(layer), config.linear if config.is_linear(layer) else None)
        for layer in range(config.num_hidden_layers)
    ]
    return nn.ModuleList(DecoderLayer(config, sparse, linear) for sparse, linear in kinds)


def run_layers(
    layers: Iterable[nn.Module],
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    query_length: Tensor,
    past_length: Tensor,
    past: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Run x [batch, tokens, hidden] through `layers`. Returns y like x and the present states.

    `past` and the present states hold two states per layer, in the order of the layers.
    """
    present: list[Tensor] = []
    for number, layer in enumerate(layers):
        x, *states = layer(x, rotary, query_length, past_length, *past[2 * number : 2 * number + 2])
        present += states
    return x, present
