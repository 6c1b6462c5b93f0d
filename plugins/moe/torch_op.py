"""MoE inside a stage module: the PyTorch op `antiphon::moe`, its eager implementation and its export."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("antiphon::moe", mutates_args=())
def moe(
    x: Tensor, router_logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, normalize: bool
) -> Tensor:
    """See plugins.registry.MOE. Each chosen expert runs once, on its rows; other experts are not read."""
    rows = x.reshape(-1, x.shape[-1])
    probabilities = torch.softmax(router_logits.float(), dim=-1)
    shares, chosen = torch.topk(probabilities, top_k, dim=-1)
    if normalize:
        shares = shares / shares.sum(-1, keepdim=True)
    y = torch.zeros_like(rows)
    for expert in torch.unique(chosen).tolist():
        row, slot = torch.where(chosen == expert)
        projected = rows[row] @ gate_up[expert].T
        activated = torch.nn.functional.silu(projected[:, ::2]) * projected[:, 1::2]
        y.index_add_(0, row, (activated @ down[expert].T) * shares[row, slot, None].to(rows.dtype))
    return y.reshape(x.shape)


@moe.register_fake
def _(x: Tensor, router_logits: Tensor, gate_up: Tensor, down: Tensor, top_k: int, normalize: bool) -> Tensor:
    return torch.empty_like(x)
