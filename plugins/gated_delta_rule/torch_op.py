"""GatedDeltaRule inside a stage module: the PyTorch op `antiphon::gated_delta_rule`."""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import EPSILON


@torch.library.custom_op("antiphon::gated_delta_rule", mutates_args=())
def gated_delta_rule(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    a: Tensor,
    b: Tensor,
    dt_bias: Tensor,
    decay_scale: Tensor,
    past: Tensor,
    query_length: Tensor,
    key_heads: int,
    value_heads: int,
) -> tuple[Tensor, Tensor]:
    """See plugins.registry.GATED_DELTA_RULE and plugins.gated_delta_rule.reference.

    Computes in the state's dtype.
    """
    batch, tokens, _ = value.shape
    key_dim = past.shape[2]
    is_row = torch.arange(tokens, device=query_length.device) < query_length[:, None]  # [batch, tokens]
    query_rows, key_rows = (
        _heads(rows.to(past.dtype).reshape(batch, tokens, key_heads, key_dim), value_heads)
        for rows in (query, key)
    )
    value_rows = value.to(past.dtype).reshape(batch, tokens, value_heads, -1)
    decay = torch.exp(
        decay_scale.to(past.dtype) * torch.nn.functional.softplus(a.to(past.dtype) + dt_bias.to(past.dtype))
    )
    # Padding rows neither decay nor write.
    decay = torch.where(is_row[..., None], decay, torch.ones((), dtype=past.dtype))[..., None, None]
    rate = torch.where(is_row[..., None], torch.sigmoid(b.to(past.dtype)), torch.zeros((), dtype=past.dtype))[
        ..., None, None
    ]
    state = past.clone()  # [batch, heads, key_dim, value_dim]
    y = torch.zeros_like(value_rows)
    for t in range(tokens):
        state = state * decay[:, t]
        row = key_rows[:, t, :, None]  # [batch, heads, 1, key_dim]
        change = (value_rows[:, t, :, None] - row @ state) * rate[:, t]
        state = state + row.transpose(-1, -2) @ change
        y[:, t] = (query_rows[:, t, :, None] @ state)[:, :, 0]
    y = torch.where(
        is_row[..., None], y.reshape(value.shape) * key_dim**-0.5, torch.zeros((), dtype=past.dtype)
    )
    return y.to(value.dtype), state


@gated_delta_rule.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    a: Tensor,
    b: Tensor,
    dt_bias: Tensor,
    decay_scale: Tensor,
    past: Tensor,
    query_length: Tensor,
    key_heads: int,
    value_heads: int,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(value), torch.empty_like(past)


def _heads(rows: Tensor, heads: int) -> Tensor:
    """L2-normalised rows [batch, tokens, key_heads, dim],
    each head repeated for the value heads that share it.
    """
    rows = rows * torch.rsqrt((rows * rows).sum(-1, keepdim=True) + EPSILON)
    return rows.repeat_interleave(heads // rows.shape[2], dim=2)
