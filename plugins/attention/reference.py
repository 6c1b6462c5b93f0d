"""Reference implementation of Attention, in NumPy."""

from __future__ import annotations

import numpy as np


def attention(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    past_key: np.ndarray,
    past_value: np.ndarray,
    past_length: np.ndarray,
    query_length: np.ndarray,
    num_heads: int,
    kv_num_heads: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attention of `tokens` new rows over the cache and themselves, in the dtype of the arguments.

    query [batch, tokens, num_heads * dim]; key, value [batch, tokens, kv_num_heads * dim]; past [batch,
    kv_num_heads, capacity, dim]; past_length, query_length int64 [batch]. Row t of a batch entry sees cache
    rows 0 .. past_length + t. Rows at or beyond query_length are padding: they are not written, and their
    result is zero. Returns y like query, present_key, present_value.
    """
    batch, tokens, _ = query.shape
    dim = past_key.shape[-1]
    present_key, present_value = past_key.copy(), past_value.copy()
    y = np.zeros_like(query)
    for entry in range(batch):
        past, new = int(past_length[entry]), int(query_length[entry])
        for present, rows in ((present_key, key), (present_value, value)):
            present[entry, :, past : past + new] = (
                rows[entry, :new].reshape(new, kv_num_heads, dim).transpose(1, 0, 2)
            )
        for t in range(new):
            for head in range(num_heads):
                kv = head // (num_heads // kv_num_heads)
                span = slice(head * dim, (head + 1) * dim)
                scores = present_key[entry, kv, : past + t + 1] @ query[entry, t, span] / np.sqrt(dim)
                weights = np.exp(scores - scores.max())
                y[entry, t, span] = weights / weights.sum() @ present_value[entry, kv, : past + t + 1]
    return y, present_key, present_value
