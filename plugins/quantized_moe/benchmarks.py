"""Benchmarks of QuantizedMoE: the 30B Thinker's block at 8 tokens, in every scheme."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..moe.benchmarks import EXPERTS, HIDDEN, INTER, TOP_K, bytes_moved, multiply_gathered, operations, route
from ..tools.benchmark import Benchmark
from .programs import SCHEMES, Scheme
from .reference import FP8, INT4, INT8

if TYPE_CHECKING:
    import torch

ROWS = 8
LARGEST = {FP8: 2, INT8: 128, INT4: 8}
"""The largest number that `make` draws per format; the scales shrink accordingly."""


def benchmarks() -> list[Benchmark]:
    """One per scheme. bytes_moved counts the scales and weights of the experts expected of random routing."""
    return [
        Benchmark(
            name=f"Thinker 30B, {ROWS} tokens, {scheme.name}, bfloat16",
            op="QuantizedMoE",
            attributes={"top_k": TOP_K, "normalize": 1, "format": scheme.format},
            make=partial(make, scheme=scheme),
            eager=eager,
            bytes_moved=bytes_moved(ROWS, _bytes(scheme, 2 * INTER, HIDDEN) + _bytes(scheme, HIDDEN, INTER)),
            operations=operations(ROWS),
            aim="80 % of the memory's bandwidth",
        )
        for scheme in SCHEMES
    ]


def make(generator: torch.Generator, scheme: Scheme) -> Mapping[str, torch.Tensor]:
    """Random activations, logits and bits, with scales that keep the magnitude of the activations."""
    import torch

    device = generator.device

    def weights(outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (EXPERTS, outputs, inputs // 2 if scheme.format == INT4 else inputs)
        bits = torch.randint(0, 256, shape, generator=generator, device=device, dtype=torch.uint8)
        if scheme.format == FP8:
            bits &= 0xBF  # numbers below 2, so no NaN
        scales = torch.rand((EXPERTS, *_scales(scheme, outputs, inputs)), generator=generator, device=device)
        return bits, (scales + 0.5) / (LARGEST[scheme.format] * inputs**0.5)

    def normal(columns: int) -> torch.Tensor:
        return torch.randn((ROWS, columns), generator=generator, device=device, dtype=torch.bfloat16)

    gate_up, gate_up_scale = weights(2 * INTER, HIDDEN)
    down, down_scale = weights(HIDDEN, INTER)
    return {
        "x": normal(HIDDEN),
        "router_logits": normal(EXPERTS),
        "gate_up": gate_up,
        "gate_up_scale": gate_up_scale,
        "down": down,
        "down_scale": down_scale,
    }


def eager(inputs: Mapping[str, torch.Tensor], attributes: Mapping[str, int]) -> torch.Tensor:
    """Gather the chosen experts' weights per row and slot, decode to bfloat16 and multiply in a batch."""
    from .torch_op import dequantize

    x, format = inputs["x"], attributes["format"]
    shares, chosen = route(inputs["router_logits"], attributes)
    experts = chosen.flatten()
    gate_up, down = (
        dequantize(inputs[name][experts], inputs[f"{name}_scale"][experts], format).to(x.dtype)
        for name in ("gate_up", "down")
    )
    return multiply_gathered(x, gate_up, down, shares)


def _bytes(scheme: Scheme, outputs: int, inputs: int) -> int:
    outputs_scales, inputs_scales = _scales(scheme, outputs, inputs)
    return outputs * inputs // (2 if scheme.format == INT4 else 1) + 4 * outputs_scales * inputs_scales


def _scales(scheme: Scheme, outputs: int, inputs: int) -> tuple[int, int]:
    return -(-outputs // scheme.outputs), -(-inputs // scheme.inputs) if scheme.inputs else 1
