"""Reference implementation of CausalConvState, in NumPy."""

from __future__ import annotations

import numpy as np


def causal_conv_state(
    x: np.ndarray, weight: np.ndarray, past: np.ndarray, query_length: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """SiLU of the depthwise causal convolution of past|x, in the dtype of the arguments.

    x [batch, tokens, channels]; weight [channels, 1, kernel]; past [batch, kernel - 1, channels];
    query_length int64 [batch]. Rows at or beyond query_length are padding: their result is zero and they do
    not change the state. Returns y like x, present like past. Source: HF Qwen3_5MoeGatedDeltaNet.
    """
    batch, tokens, _ = x.shape
    kernel = weight.shape[-1]
    y, present = np.zeros_like(x), np.empty_like(past)
    for entry in range(batch):
        length = int(query_length[entry])
        rows = np.concatenate([past[entry], x[entry, :length]])  # [kernel - 1 + length, channels]
        for t in range(length):
            convolved = (rows[t : t + kernel] * weight[:, 0].T).sum(axis=0)
            y[entry, t] = convolved / (1 + np.exp(-convolved))
        present[entry] = rows[length:]
    return y, present
