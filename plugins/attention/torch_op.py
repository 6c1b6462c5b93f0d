"""Attention inside a stage module: the PyTorch op `antiphon::attention`."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("antiphon::attention", mutates_args=())
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_length: Tensor,
    query_length: Tensor,
    num_heads: int,
    kv_num_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See plugins.registry.ATTENTION and plugins.attention.reference.

    This op is functional; a lowered engine works in place.
    """
    batch, tokens, _ = query.shape
    capacity, dim = past_key.shape[2:]
    present_key, present_value = past_key.clone(), past_value.clone()
    for entry in range(batch):
        start, new = int(past_length[entry]), int(query_length[entry])
        for present, rows in ((present_key, key), (present_value, value)):
            present[entry, :, start : start + new] = (
                rows[entry, :new].reshape(new, kv_num_heads, dim).transpose(0, 1)
            )
    # Capacity beyond the longest row is never read; without it the eager cost does not depend on the
    # capacity.
    used = min(capacity, int((past_length + query_length).max())) if batch else capacity
    token = torch.arange(tokens)
    visible = torch.arange(used) <= (past_length[:, None, None] + token[:, None])  # [batch, tokens, used]
    query_heads = query.reshape(batch, tokens, num_heads, dim).transpose(1, 2)
    y = torch.nn.functional.scaled_dot_product_attention(
        query_heads,
        present_key[:, :, :used],
        present_value[:, :, :used],
        attn_mask=visible[:, None],
        enable_gqa=num_heads != kv_num_heads,
    )
    y = y.transpose(1, 2).reshape(query.shape)
    return (
        torch.where((token < query_length[:, None])[..., None], y, torch.zeros((), dtype=y.dtype)),
        present_key,
        present_value,
    )


@attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_length: Tensor,
    query_length: Tensor,
    num_heads: int,
    kv_num_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(past_key), torch.empty_like(past_value)
