"""Cases of QuantizedMoE: small inputs with answers in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from ...runtime.kernels.contract import Program
from ..moe.cases import router_logits
from ..tools.case import Case, rounded
from .programs import SCHEMES, Scheme
from .reference import FP8, INT4, decode, quantized_moe

TOLERANCE = {"float16": 2e-3, "bfloat16": 1.6e-2}
"""A weight that is scaled before the product is rounded once more than in MoE."""


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """One row, odd counts, all rows to one expert, experts without rows.

    Sizes end within a block of 128 where the scheme allows it.
    """
    is_decode, odd = "-decode-" in program.name, not program.name.endswith("-128-experts")
    group = scheme_of(program).inputs
    hidden, inter = (
        {32: (160, 64), 64: (192, 64), 128: (256, 128)}[group]
        if scheme_of(program).format == INT4
        else (208, 80)
    )
    for rows, experts, top_k, routing, normalize in (
        ((1,), 4 if odd else 16, 2, "random", True),
        ((2, 3) if is_decode else (3, 7), 5 if odd else 16, 3, "half of the experts never", False),
        ((11,) if is_decode else (40,), 3 if odd else 16, 1, "all to one", True),
        ((0,), 3 if odd else 16, 1, "random", True),
    ):
        yield case(program, rng, rows, hidden, inter, experts, top_k, normalize, routing)


def case(
    program: Program,
    rng: np.random.Generator,
    rows: tuple[int, ...],
    hidden: int,
    inter: int,
    experts: int,
    top_k: int,
    normalize: bool,
    routing: str,
) -> Case:
    """One call; see moe.cases.case."""
    dtype = program.inputs[0].dtype
    gate_up, gate_up_scale = weights(rng, scheme_of(program), experts, 2 * inter, hidden)
    down, down_scale = weights(rng, scheme_of(program), experts, hidden, inter)
    inputs = {
        "x": rounded(rng.standard_normal((*rows, hidden)), dtype),
        "router_logits": rounded(router_logits(rng, rows, experts, routing), dtype),
        "gate_up": gate_up,
        "gate_up_scale": gate_up_scale,
        "down": down,
        "down_scale": down_scale,
    }
    attributes = {"top_k": top_k, "normalize": int(normalize), "format": scheme_of(program).format}
    name = (
        f"{program.name}: rows {rows}, hidden {hidden}, inter {inter}, {experts} experts, "
        f"top-{top_k}, {routing}"
    )
    return Case(name, program, inputs, attributes, partial(_expected, inputs, attributes), TOLERANCE[dtype])


def scheme_of(program: Program) -> Scheme:
    """The scheme of a program; the program's name begins with the scheme's."""
    return next(found for found in SCHEMES if program.name.startswith(found.name))


def weights(
    rng: np.random.Generator, of: Scheme, experts: int, outputs: int, inputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Random bits uint8 [experts, outputs, inputs or half] and scales float64. E4M3 has no NaN.

    The scales let a product keep the magnitude of its input.
    """
    bits = rng.integers(
        0, 256, (experts, outputs, inputs // 2 if of.format == INT4 else inputs), dtype=np.uint8
    )
    if of.format == FP8:
        bits &= np.where((bits & 0x7F) == 0x7F, 0xFE, 0xFF).astype(np.uint8)
    shape = (experts, -(-outputs // of.outputs), -(-inputs // of.inputs) if of.inputs else 1)
    size = np.sqrt(np.mean(decode(bits, of.format) ** 2) * inputs)
    return bits, rounded(rng.uniform(0.5, 2, shape) / size, "float32")


def _expected(inputs: Mapping[str, np.ndarray], attributes: Mapping[str, int]) -> Mapping[str, np.ndarray]:
    x, logits = (inputs[name].reshape(-1, inputs[name].shape[-1]) for name in ("x", "router_logits"))
    gate_up, gate_up_scale, down, down_scale = (
        inputs[name] for name in ("gate_up", "gate_up_scale", "down", "down_scale")
    )
    top_k, normalize, format = (attributes[name] for name in ("top_k", "normalize", "format"))
    return {
        "y": quantized_moe(
            x, logits, gate_up, gate_up_scale, down, down_scale, top_k, bool(normalize), format
        )
    }
