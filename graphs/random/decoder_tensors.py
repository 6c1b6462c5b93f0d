"""Random tensors of a decoder: full attention or Gated DeltaNet, experts or a dense network.

Names: transformers 5.23 (`qwen3_omni_moe`, `qwen3_next`, `qwen3_5_moe`). weight_layouts.py arranges these
tensors in the stored layouts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..config import DecoderConfig, LinearAttentionConfig
from .initializers import (
    ATTENTION_GAIN,
    BRANCH_POWER,
    GATED_POWER,
    QUERY_NORM,
    Draw,
    Tensor,
    Uniform,
    feed_forward,
    linear,
    norm,
)

# Mean square of sigmoid(x) for unit normal x: the factor by which an output gate reduces the power.
SIGMOID_POWER = 0.293
DECAY_RATES = (0.01, 16.0)
"""Range of exp(A_log), as in transformers' `_init_weights`."""
STEPS = (0.001, 0.1)
"""Range of the time steps softplus(dt_bias), uniform in their logarithm as in Mamba-2. With these decay rates
some heads forget after one token and some keep their state."""


def decoder(prefix: str, text: DecoderConfig) -> Iterator[Tensor]:
    """The tensors of all layers and of the final norm; the caller adds embedding and head."""
    branch = math.sqrt(BRANCH_POWER / (2 * text.num_hidden_layers))
    for layer in range(text.num_hidden_layers):
        yield from decoder_layer(f"{prefix}.layers.{layer}", text, layer, branch)
    yield from layer_norm(f"{prefix}.norm", text, text.hidden_size)


def decoder_layer(name: str, text: DecoderConfig, layer: int, branch: float) -> Iterator[Tensor]:
    """The tensors of layer `layer` of `text`; `branch` is the std that each residual branch adds."""
    hidden = text.hidden_size
    yield from layer_norm(f"{name}.input_layernorm", text, hidden)
    if text.is_linear(layer):
        assert text.linear is not None
        yield from _delta_net(f"{name}.linear_attn", text.linear, hidden, branch)
    else:
        yield from _attention(f"{name}.self_attn", text, branch)
    yield from layer_norm(f"{name}.post_attention_layernorm", text, hidden)
    if text.is_sparse(layer):
        # Router logits of std 3: clear choices for each token, balanced use of experts over all tokens.
        yield from linear(f"{name}.mlp.gate", text.num_experts, hidden, gain=3.0)
        for expert in range(text.num_experts):
            yield from feed_forward(
                f"{name}.mlp.experts.{expert}", hidden, text.moe_intermediate_size, branch
            )
        if text.shared_expert_intermediate_size:
            yield from feed_forward(
                f"{name}.mlp.shared_expert", hidden, text.shared_expert_intermediate_size, branch
            )
            yield from linear(f"{name}.mlp.shared_expert_gate", 1, hidden)
    else:
        yield from feed_forward(f"{name}.mlp", hidden, text.intermediate_size, branch)


def layer_norm(prefix: str, text: DecoderConfig, size: int, scale: float = 1.0) -> Iterator[Tensor]:
    """A norm whose weights have mean `scale`; zero-centred norms are stored as weight - 1."""
    yield from norm(prefix, size, mean=scale - 1.0 if text.zero_centred_norms else scale)


def _attention(name: str, text: DecoderConfig, branch: float) -> Iterator[Tensor]:
    hidden, queries, keys = (
        text.hidden_size,
        text.num_attention_heads * text.head_dim,
        text.num_key_value_heads * text.head_dim,
    )
    gates, gate_power = (queries, SIGMOID_POWER) if text.gated_attention else (0, 1.0)
    for projection, rows in (("q_proj", queries + gates), ("k_proj", keys), ("v_proj", keys)):
        yield from linear(f"{name}.{projection}", rows, hidden, bias=text.attention_bias)
    yield from linear(
        f"{name}.o_proj",
        hidden,
        queries,
        bias=text.attention_bias,
        gain=ATTENTION_GAIN * branch / math.sqrt(gate_power),
    )
    yield from layer_norm(f"{name}.q_norm", text, text.head_dim, QUERY_NORM)
    yield from layer_norm(f"{name}.k_norm", text, text.head_dim)


def _delta_net(
    name: str, linear_config: LinearAttentionConfig, hidden: int, branch: float
) -> Iterator[Tensor]:
    """The tensors of a Gated DeltaNet layer.

    Its input projection is split into `in_proj.{part}.{key head}` with part q, k, v, z, b or a. A stored
    layout is an order of these parts.
    """
    heads, values = linear_config.linear_num_key_heads, linear_config.linear_num_value_heads
    group, key_dim, value_dim = (
        values // heads,
        linear_config.linear_key_head_dim,
        linear_config.linear_value_head_dim,
    )
    rows = {
        "q": key_dim,
        "k": key_dim,
        "v": group * value_dim,
        "z": group * value_dim,
        "b": group,
        "a": group,
    }
    for part, count in rows.items():
        for head in range(heads):
            yield Tensor(f"{name}.in_proj.{part}.{head}", (count, hidden), Draw(1 / math.sqrt(hidden)))
    kernel = linear_config.linear_conv_kernel_dim
    yield Tensor(f"{name}.conv1d.weight", (linear_config.conv_size, 1, kernel), Draw(1 / math.sqrt(kernel)))
    yield Tensor(f"{name}.A_log", (values,), Uniform(*DECAY_RATES, logarithm=True), "float32")
    # For steps this small, the inverse of softplus is about the logarithm.
    yield Tensor(f"{name}.dt_bias", (values,), Uniform(math.log(STEPS[0]), math.log(STEPS[1])))
    yield from norm(f"{name}.norm", value_dim)
    yield from linear(
        f"{name}.out_proj", hidden, linear_config.value_size, gain=branch / math.sqrt(GATED_POWER)
    )
