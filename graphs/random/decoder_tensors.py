"""Tensors of a decoder stack: full or Gated DeltaNet attention, experts or a dense network.

Names: transformers 5.23 (`qwen3_omni_moe`, `qwen3_next`, `qwen3_5_moe`), whose stored layouts the writer makes of these tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import DecoderConfig, LinearAttentionConfig
from .initializers import ATTENTION_GAIN, BRANCH_POWER, GATED_POWER, QUERY_NORM, Draw, Tensor, Uniform, feed_forward, linear, norm

# Mean square of sigmoid(x) for a unit normal input: what an output gate takes away.
SIGMOID_POWER = 0.293
DECAY_RATES = (0.01, 16.0)
"""Of transformers' `_init_weights`."""
STEPS = (0.001, 0.1)
"""Time steps softplus(dt_bias), spread evenly in their logarithm as by Mamba-2: with the decay rates, heads that forget at once and heads that never do."""


def decoder(prefix: str, text: DecoderConfig) -> Iterator[Tensor]:
    """All layers and the final norm; embedding and head are the caller's."""
    branch = math.sqrt(BRANCH_POWER / (2 * text.num_hidden_layers))
    for layer in range(text.num_hidden_layers):
        yield from decoder_layer(f"{prefix}.layers.{layer}", text, layer, branch)
    yield from layer_norm(f"{prefix}.norm", text, text.hidden_size)


def decoder_layer(name: str, text: DecoderConfig, layer: int, branch: float) -> Iterator[Tensor]:
    """Layer `layer` of `text`; `branch` is the std that each of its two branches adds."""
    hidden = text.hidden_size
    yield from layer_norm(f"{name}.input_layernorm", text, hidden)
    if text.is_linear(layer):
        assert text.linear is not None
        yield from _delta_net(f"{name}.linear_attn", text.linear, hidden, branch)
    else:
        yield from _attention(f"{name}.self_attn", text, branch)
    yield from layer_norm(f"{name}.post_attention_layernorm", text, hidden)
    if text.is_sparse(layer):
        # Router logits of std 3: decisive for a token, balanced over tokens.
        yield from linear(f"{name}.mlp.gate", text.num_experts, hidden, gain=3.0)
        for expert in range(text.num_experts):
            yield from feed_forward(f"{name}.mlp.experts.{expert}", hidden, text.moe_intermediate_size, branch)
        if text.shared_expert_intermediate_size:
            yield from feed_forward(f"{name}.mlp.shared_expert", hidden, text.shared_expert_intermediate_size, branch)
            yield from linear(f"{name}.mlp.shared_expert_gate", 1, hidden)
    else:
        yield from feed_forward(f"{name}.mlp", hidden, text.intermediate_size, branch)


def layer_norm(prefix: str, text: DecoderConfig, size: int, scale: float = 1.0) -> Iterator[Tensor]:
    """A norm of mean weight `scale`, stored without its 1 where the decoder's norms are zero-centred."""
    yield from norm(prefix, size, mean=scale - 1.0 if text.zero_centred_norms else scale)


def _attention(name: str, text: DecoderConfig, branch: float) -> Iterator[Tensor]:
    hidden, queries, keys = text.hidden_size, text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    gates, gate_power = (queries, SIGMOID_POWER) if text.gated_attention else (0, 1.0)
    for projection, rows in (("q_proj", queries + gates), ("k_proj", keys), ("v_proj", keys)):
        yield from linear(f"{name}.{projection}", rows, hidden, bias=text.attention_bias)
    yield from linear(f"{name}.o_proj", hidden, queries, bias=text.attention_bias, gain=ATTENTION_GAIN * branch / math.sqrt(gate_power))
    yield from layer_norm(f"{name}.q_norm", text, text.head_dim, QUERY_NORM)
    yield from layer_norm(f"{name}.k_norm", text, text.head_dim)


def _delta_net(name: str, linear_config: LinearAttentionConfig, hidden: int, branch: float) -> Iterator[Tensor]:
    """The input projections come in parts, one a key head, `in_proj.{part}.{head}` with part q, k, v, z, b or a: stored layouts only order them."""
    heads, values = linear_config.linear_num_key_heads, linear_config.linear_num_value_heads
    group, key_dim, value_dim = values // heads, linear_config.linear_key_head_dim, linear_config.linear_value_head_dim
    rows = {"q": key_dim, "k": key_dim, "v": group * value_dim, "z": group * value_dim, "b": group, "a": group}
    for part, count in rows.items():
        for head in range(heads):
            yield Tensor(f"{name}.in_proj.{part}.{head}", (count, hidden), Draw(1 / math.sqrt(hidden)))
    kernel = linear_config.linear_conv_kernel_dim
    yield Tensor(f"{name}.conv1d.weight", (linear_config.conv_size, 1, kernel), Draw(1 / math.sqrt(kernel)))
    yield Tensor(f"{name}.A_log", (values,), Uniform(*DECAY_RATES, logarithm=True), "float32")
    # The inverse of softplus is the logarithm for steps this small.
    yield Tensor(f"{name}.dt_bias", (values,), Uniform(math.log(STEPS[0]), math.log(STEPS[1])))
    yield from norm(f"{name}.norm", value_dim)
    yield from linear(f"{name}.out_proj", hidden, linear_config.value_size, gain=branch / math.sqrt(GATED_POWER))
