"""Benchmarks of CausalConvState at the size of Qwen3.5's 30B-class decoders.

8192 channels: queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..tools.benchmark import Benchmark

if TYPE_CHECKING:
    import torch

CHANNELS = 8192


def benchmarks() -> list[Benchmark]:
    """Decode of 1 and 8 streams and prefill of 4,096 tokens, in bfloat16 with a float32 state as in the
    graphs."""
    return [
        _benchmark(*call)
        for call in (
            ("decode, 1 stream", 1, 1),
            ("decode, 8 streams", 8, 1),
            ("prefill, 4096 tokens", 1, 4096),
        )
    ]


def eager(
    inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """y and present from PyTorch's depthwise convolution over past|x."""
    import torch

    x, weight, past, query_length = inputs["x"], inputs["weight"], inputs["past"], inputs["query_length"]
    rows = torch.cat([past.to(x.dtype), x], 1)  # [batch, 3 + tokens, channels]
    convolved = torch.nn.functional.conv1d(rows.transpose(1, 2), weight, groups=weight.shape[0]).transpose(
        1, 2
    )
    is_row = torch.arange(x.shape[1], device=x.device) < query_length[:, None]
    place = query_length[:, None] + torch.arange(past.shape[1], device=x.device)
    return torch.nn.functional.silu(convolved) * is_row[..., None], rows.gather(
        1, place[..., None].expand(past.shape)
    ).to(past.dtype)


def _benchmark(name: str, batch: int, tokens: int) -> Benchmark:
    values = batch * tokens * CHANNELS
    return Benchmark(
        name=name,
        op="CausalConvState",
        attributes={},
        make=partial(_inputs, batch, tokens),
        eager=eager,
        # x and y; weight; past and present
        bytes_moved=2 * 2 * values + 2 * 4 * CHANNELS + 4 * 2 * batch * 3 * CHANNELS,
        # Four taps; SiLU counts as an exponential, a sum, a quotient and a product.
        operations=(4 * 2 + 4) * values,
        aim="" if tokens == 1 else "80 % of measured memory bandwidth",
    )


def _inputs(batch: int, tokens: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    import torch

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=generator.device).bfloat16()

    inputs = {
        "x": random(batch, tokens, CHANNELS),
        "weight": random(CHANNELS, 1, 4),
        "past": random(batch, 3, CHANNELS).float(),
    }
    return inputs | {"query_length": torch.full((batch,), tokens, device=generator.device)}
