"""Reference implementation of GatedDeltaRule, in NumPy."""

from __future__ import annotations

import numpy as np

EPSILON = 1e-6
"""Added to the sum of squares of a query or key before the square root."""


def gated_delta_rule(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    dt_bias: np.ndarray,
    decay_scale: np.ndarray,
    past: np.ndarray,
    query_length: np.ndarray,
    key_heads: int,
    value_heads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The recurrence token by token, in the dtype of the arguments (float64 for a reference).

    query, key [batch, tokens, key_heads * key_dim]; value [batch, tokens, value_heads * value_dim]; a, b
    [batch, tokens, value_heads]; dt_bias, decay_scale (= -exp(A_log)) [value_heads]; past [batch,
    value_heads, key_dim, value_dim]; query_length int64 [batch]. Rows at or beyond query_length are padding:
    their result is zero and they do not change the state. Returns y like value, present like past. Source:
    Gated Delta Networks (arXiv 2412.06464), equation 10; HF Qwen3_5MoeGatedDeltaNet.
    """
    batch, _, _ = value.shape
    key_dim, value_dim = past.shape[2:]
    present, y = past.copy(), np.zeros_like(value)
    for entry in range(batch):
        for t in range(int(query_length[entry])):
            for head in range(value_heads):
                shared = head // (value_heads // key_heads)
                q, k = (rows[entry, t, shared * key_dim : (shared + 1) * key_dim] for rows in (query, key))
                q = q / np.sqrt((q * q).sum() + EPSILON) / np.sqrt(key_dim)
                k = k / np.sqrt((k * k).sum() + EPSILON)
                span = slice(head * value_dim, (head + 1) * value_dim)
                state = present[entry, head] * np.exp(
                    decay_scale[head] * np.logaddexp(0, a[entry, t, head] + dt_bias[head])
                )
                change = (value[entry, t, span] - k @ state) / (1 + np.exp(-b[entry, t, head]))
                present[entry, head] = state + np.outer(k, change)
                y[entry, t, span] = q @ present[entry, head]
    return y, present
