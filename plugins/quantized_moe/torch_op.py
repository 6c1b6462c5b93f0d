"""QuantizedMoE inside a stage module: the PyTorch op `antiphon::quantized_moe` and its export."""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import FP8, INT8


@torch.library.custom_op("antiphon::quantized_moe", mutates_args=())
def quantized_moe(
    x: Tensor,
    router_logits: Tensor,
    gate_up: Tensor,
    gate_up_scale: Tensor,
    down: Tensor,
    down_scale: Tensor,
    top_k: int,
    normalize: bool,
    format: int,
) -> Tensor:
    """See plugins.registry.QUANTIZED_MOE. Only chosen experts are decoded, one at a time."""
    rows = x.reshape(-1, x.shape[-1])
    probabilities = torch.softmax(router_logits.reshape(len(rows), -1).float(), dim=-1)
    shares, chosen = torch.topk(probabilities, top_k, dim=-1)
    if normalize:
        shares = shares / shares.sum(-1, keepdim=True)
    y = torch.zeros_like(rows)
    for expert in torch.unique(chosen).tolist():
        row, slot = torch.where(chosen == expert)
        projected = rows[row] @ dequantize(gate_up[expert], gate_up_scale[expert], format).to(rows.dtype).T
        activated = torch.nn.functional.silu(projected[:, ::2]) * projected[:, 1::2]
        product = activated @ dequantize(down[expert], down_scale[expert], format).to(rows.dtype).T
        y.index_add_(0, row, product * shares[row, slot, None].to(rows.dtype))
    return y.reshape(x.shape)


def dequantize(bits: Tensor, scale: Tensor, format: int) -> Tensor:
    """Weights float32 [..., outputs, inputs] from uint8 bits and their scale; see `reference.dequantize`."""
    numbers = _decode(bits, format)
    for axis in (-2, -1):
        size, scales = numbers.shape[axis], scale.shape[axis]
        places = 128 if scales == -(-size // 128) else size // scales
        scale = scale.index_select(axis, torch.arange(size, device=scale.device) // places)
    return numbers * scale


def _decode(bits: Tensor, format: int) -> Tensor:
    # E4M3 is a float16 divided by 256, apart from the places of its bits.
    if format == FP8:
        wide = bits.to(torch.int32)
        return ((wide & 0x80) << 8 | (wide & 0x7F) << 7).to(torch.int16).view(torch.float16).float() * 256
    if format == INT8:
        return bits.view(torch.int8).float()
    return torch.stack([bits & 15, bits >> 4], dim=-1).flatten(-2).float() - 8


@quantized_moe.register_fake
def _(
    x: Tensor,
    router_logits: Tensor,
    gate_up: Tensor,
    gate_up_scale: Tensor,
    down: Tensor,
    down_scale: Tensor,
    top_k: int,
    normalize: bool,
    format: int,
) -> Tensor:
    return torch.empty_like(x)
