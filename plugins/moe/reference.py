"""Reference implementation of MoE, in NumPy."""

from __future__ import annotations

import numpy as np


def moe(
    x: np.ndarray,
    router_logits: np.ndarray,
    gate_up: np.ndarray,
    down: np.ndarray,
    top_k: int,
    normalize: bool,
) -> np.ndarray:
    """The weighted sum of each row's `top_k` experts, in the dtype of the arguments (float64 for a
    reference).

    x [rows, hidden]; router_logits [rows, experts]; gate_up [experts, 2 * inter, hidden], gate and up rows
    interleaved; down [experts, hidden, inter]. Returns [rows, hidden]. Of equal router logits the lower
    expert wins. Source: HF Qwen3OmniMoeThinkerTextSparseMoeBlock.
    """
    probabilities = np.exp(router_logits - router_logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    chosen = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]  # [rows, top_k]
    weights = np.take_along_axis(probabilities, chosen, axis=-1)
    if normalize:
        weights = weights / weights.sum(-1, keepdims=True)
    y = np.zeros_like(x)
    for row, (experts, shares) in enumerate(zip(chosen, weights, strict=True)):
        for expert, share in zip(experts, shares, strict=True):
            projected = gate_up[expert] @ x[row]  # [2 * inter]
            gate, up = projected[::2], projected[1::2]
            y[row] += share * (down[expert] @ (gate / (1 + np.exp(-gate)) * up))
    return y


def interleave(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Interleave gate and up [..., inter, hidden] as rows g0, u0, g1, u1 ... [..., 2 * inter, hidden]."""
    return np.stack([gate, up], axis=-2).reshape(*gate.shape[:-2], -1, gate.shape[-1])
