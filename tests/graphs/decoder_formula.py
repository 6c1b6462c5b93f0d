"""A dense or sparse decoder of gated full attention in float64 NumPy, whole sequences without a cache:
what has no public reference is held to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from antiphon.graphs.config import DecoderConfig

Tensors = Mapping[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def zero_centred_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * (1 + weight.astype(np.float64))


def decoder_layer(
    x: np.ndarray, tensors: Tensors, prefix: str, config: DecoderConfig, positions: np.ndarray
) -> np.ndarray:
    """x [tokens, hidden] of one stream at `positions` [3, tokens] -> the layer's output,
    from checkpoint tensors that start with `prefix`.
    """

    def weight(name: str) -> np.ndarray:
        return tensors[f"{prefix}.{name}"].astype(np.float64)

    x = x + gated_attention(
        zero_centred_norm(x, weight("input_layernorm.weight"), config.rms_norm_eps),
        tensors,
        f"{prefix}.self_attn",
        config,
        positions,
    )
    rows = zero_centred_norm(x, weight("post_attention_layernorm.weight"), config.rms_norm_eps)
    if not config.num_experts:
        return x + feed_forward(
            rows, weight("mlp.gate_proj.weight"), weight("mlp.up_proj.weight"), weight("mlp.down_proj.weight")
        )
    shared = feed_forward(
        rows, *(weight(f"mlp.shared_expert.{part}_proj.weight") for part in ("gate", "up", "down"))
    )
    y = sigmoid(rows @ weight("mlp.shared_expert_gate.weight").T) * shared
    scores = np.exp(rows @ weight("mlp.gate.weight").T)
    gate_up, down = weight("mlp.experts.gate_up_proj"), weight("mlp.experts.down_proj")
    for token, score in enumerate(scores):
        chosen = np.argsort(-score)[: config.num_experts_per_tok]
        for expert in chosen:
            gate, up = np.split(gate_up[expert], 2)
            y[token] += (
                score[expert] / score[chosen].sum() * feed_forward(rows[token], gate, up, down[expert])
            )
    return x + y


def feed_forward(x: np.ndarray, gate: np.ndarray, up: np.ndarray, down: np.ndarray) -> np.ndarray:
    gated = x @ gate.T
    return (gated * sigmoid(gated) * (x @ up.T)) @ down.T


def gated_attention(
    x: np.ndarray, tensors: Tensors, prefix: str, config: DecoderConfig, positions: np.ndarray
) -> np.ndarray:
    """Each head's rows of q_proj are its query, then its gate."""

    def project(name: str) -> np.ndarray:
        y = x @ tensors[f"{prefix}.{name}_proj.weight"].astype(np.float64).T
        return y + tensors[f"{prefix}.{name}_proj.bias"] if config.attention_bias else y

    tokens, dim, result = len(x), config.head_dim, []
    queries, keys, values = (
        project(name).reshape(tokens, -1, width) for name, width in (("q", 2 * dim), ("k", dim), ("v", dim))
    )
    for head in range(config.num_attention_heads):
        shared = head // (config.num_attention_heads // config.num_key_value_heads)
        query = turn(
            zero_centred_norm(
                queries[:, head, :dim], tensors[f"{prefix}.q_norm.weight"], config.rms_norm_eps
            ),
            config,
            positions,
        )
        key = turn(
            zero_centred_norm(keys[:, shared], tensors[f"{prefix}.k_norm.weight"], config.rms_norm_eps),
            config,
            positions,
        )
        scores = np.exp(query @ key.T / np.sqrt(dim)) * np.tri(tokens)
        result.append(
            scores / scores.sum(1, keepdims=True) @ values[:, shared] * sigmoid(queries[:, head, dim:])
        )
    y = np.concatenate(result, axis=1) @ tensors[f"{prefix}.o_proj.weight"].astype(np.float64).T
    return y + tensors[f"{prefix}.o_proj.bias"] if config.attention_bias else y


def turn(x: np.ndarray, config: DecoderConfig, positions: np.ndarray) -> np.ndarray:
    """Rotate the first dimensions of x [tokens, dim], pair by pair;
    frequency i turns with axis i % 3 while that axis has frequencies left.
    """
    half, turned = config.rope.dim(config.head_dim) // 2, x.copy()
    sections = config.rope.mrope_section or (half, 0, 0)
    for i in range(half):
        axis = i % 3 if i % 3 and i < 3 * sections[i % 3] else 0
        angle = positions[axis].astype(np.float64) * config.rope.theta ** (-i / half)
        turned[:, i] = x[:, i] * np.cos(angle) - x[:, half + i] * np.sin(angle)
        turned[:, half + i] = x[:, half + i] * np.cos(angle) + x[:, i] * np.sin(angle)
    return turned
