"""Benchmarks of MoE: the block of Qwen3-Omni-30B-A3B's Thinker."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..tools.benchmark import Benchmark

if TYPE_CHECKING:
    import torch

EXPERTS, TOP_K, HIDDEN, INTER = 128, 8, 2048, 768
"""The sizes of Qwen3-Omni-30B-A3B's Thinker."""
DECODE_ROWS = 16
"""The most rows for which `eager` gathers weights; with more it loops over the experts."""


def benchmarks() -> list[Benchmark]:
    """Decode of 1 to 16 tokens and prefill of 4,096."""
    return [
        Benchmark(
            name=f"Thinker 30B, {rows} tokens, bfloat16",
            op="MoE",
            attributes={"top_k": TOP_K, "normalize": 1},
            make=partial(make, rows=rows),
            eager=eager,
            bytes_moved=bytes_moved(rows, 3 * HIDDEN * INTER * 2),
            operations=operations(rows),
            aim=aim,
        )
        for rows, aim in (
            (1, "60 % of the memory's bandwidth"),
            *((rows, "80 % of the memory's bandwidth") for rows in (4, 8, 16)),
            (4096, "half of the bfloat16 peak"),
        )
    ]


def bytes_moved(rows: int, expert_bytes: float) -> int:
    """Bytes of x, y, the logits and the chosen experts' weights, each read once.

    The number of chosen experts is the one expected of random routing.
    """
    chosen = EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** rows)
    return round(chosen * expert_bytes) + rows * (2 * HIDDEN + EXPERTS) * 2


def operations(rows: int) -> int:
    """Operations of the three matrix products."""
    return 2 * 3 * rows * TOP_K * HIDDEN * INTER


def make(generator: torch.Generator, rows: int) -> Mapping[str, torch.Tensor]:
    """Random activations, weights and logits."""
    import torch

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.bfloat16)

    return {
        "x": normal(rows, HIDDEN),
        "router_logits": normal(rows, EXPERTS),
        "gate_up": normal(EXPERTS, 2 * INTER, HIDDEN) / HIDDEN**0.5,
        "down": normal(EXPERTS, HIDDEN, INTER) / INTER**0.5,
    }


def eager(inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]) -> torch.Tensor:
    """Few rows gather the weights of their experts and multiply them in a batch; many loop over the
    experts."""
    import torch

    x, gate_up, down = inputs["x"], inputs["gate_up"], inputs["down"]
    shares, chosen = route(inputs["router_logits"], attributes)
    if len(x) <= DECODE_ROWS:
        return multiply_gathered(x, gate_up[chosen.flatten()], down[chosen.flatten()], shares)
    y = torch.zeros_like(x)
    for expert in range(len(gate_up)):
        row, slot = torch.where(chosen == expert)
        projected = x[row] @ gate_up[expert].T
        activated = torch.nn.functional.silu(projected[:, 0::2]) * projected[:, 1::2]
        y.index_add_(0, row, (activated @ down[expert].T) * shares[row, slot, None].to(x.dtype))
    return y


def route(logits: torch.Tensor, attributes: Mapping[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares float32 and ids of the chosen experts, each [rows, top_k]."""
    import torch

    shares, chosen = torch.topk(torch.softmax(logits.float(), -1), attributes["top_k"], -1)
    return shares / shares.sum(-1, keepdim=True) if attributes["normalize"] else shares, chosen


def multiply_gathered(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, shares: torch.Tensor
) -> torch.Tensor:
    """y from weights that are gathered per row and slot, [rows * top_k, ...]."""
    import torch

    rows, top_k = shares.shape
    projected = torch.bmm(gate_up, x.repeat_interleave(top_k, 0)[:, :, None])  # [rows * top_k, 2 * inter, 1]
    activated = torch.nn.functional.silu(projected[:, 0::2]) * projected[:, 1::2]
    return (torch.bmm(down, activated).reshape(rows, top_k, -1) * shares[:, :, None].to(x.dtype)).sum(1)
