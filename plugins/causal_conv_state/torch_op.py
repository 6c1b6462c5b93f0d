"""CausalConvState inside a stage module: the PyTorch op `antiphon::causal_conv_state`."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("antiphon::causal_conv_state", mutates_args=())
def causal_conv_state(x: Tensor, weight: Tensor, past: Tensor, query_length: Tensor) -> tuple[Tensor, Tensor]:
    """See plugins.registry.CAUSAL_CONV_STATE and plugins.causal_conv_state.reference."""
    tokens = x.shape[1]
    rows = torch.cat([past, x], dim=1)  # [batch, kernel - 1 + tokens, channels]
    convolved = torch.nn.functional.conv1d(rows.transpose(1, 2), weight, groups=weight.shape[0]).transpose(
        1, 2
    )
    is_row = (torch.arange(tokens, device=query_length.device) < query_length[:, None])[..., None]
    y = torch.where(is_row, torch.nn.functional.silu(convolved), torch.zeros((), dtype=x.dtype))
    # [batch, kernel - 1]: the last rows of past|x[:query_length]
    index = query_length[:, None] + torch.arange(past.shape[1], device=query_length.device)
    return y.contiguous(), rows.gather(1, index[..., None].expand(past.shape))


@causal_conv_state.register_fake
def _(x: Tensor, weight: Tensor, past: Tensor, query_length: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(past)
