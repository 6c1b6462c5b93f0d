"""The GPU programs of QuantizedMoE: MoE's routing and weighted sum, with products for quantised weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ...runtime.kernels.contract import Launch, Operand, Program, Scalar
from ..moe.programs import (
    DTYPES,
    EXPERTS,
    ROWS,
    Tile,
    combination,
    condition,
    product,
    routing,
    scratch,
    symbols,
)
from .reference import FP8, INT4, INT8


@dataclass(frozen=True)
class Scheme:
    """A weight format, and the number of outputs and inputs that share one scale."""

    name: str
    format: int
    outputs: int
    inputs: int
    """0: the whole axis."""


SCHEMES = (
    Scheme("fp8-channel", FP8, 1, 0),
    Scheme("fp8-block-128", FP8, 128, 128),
    Scheme("int8-channel", INT8, 1, 0),
    Scheme("int4-group-32", INT4, 1, 32),
    Scheme("int4-group-64", INT4, 1, 64),
    Scheme("int4-group-128", INT4, 1, 128),
)


def programs(target: str) -> list[Program]:
    """Decode (up to 16 rows) and prefill, per scheme and dtype of x."""
    return [
        _program(target, scheme, dtype, regime, experts)
        for scheme in SCHEMES
        for dtype in DTYPES
        for regime in ("decode", "prefill")
        for experts in EXPERTS
    ]


def _program(target: str, scheme: Scheme, dtype: str, regime: str, experts: int) -> Program:
    tile = _tile(target, scheme, regime)
    is_split = scheme.format == INT4
    per_byte = 2 if is_split else 1
    x = "split" if is_split else "x"
    gate_up = product(
        "quantized_moe.gate_up",
        (x, "gate_up", "gate_up_scale", "order", "block"),
        ("hidden", "inter", "slots"),
        "activated",
        "2 * inter",
        tile,
    )
    down = product(
        "quantized_moe.down",
        ("activated", "down", "down_scale", "order", "block"),
        ("inter", "hidden"),
        "partial",
        "hidden",
        tile,
    )
    constants = {"FORMAT": scheme.format, "SCALE_OUTPUTS": scheme.outputs, "SCALE_INPUTS": scheme.inputs}
    whole_groups = f"hidden % {scheme.inputs} == 0 and inter % {scheme.inputs} == 0 and " if is_split else ""
    return Program(
        op="QuantizedMoE",
        name=f"{scheme.name}-{dtype}-{regime}-{experts}-experts",
        inputs=(
            Operand("x", dtype, ("*rows", "hidden")),
            Operand("router_logits", dtype, ("*rows", "experts")),
            Operand("gate_up", "uint8", ("experts", "2 * inter", f"hidden // {per_byte}")),
            Operand("gate_up_scale", "float32", ("experts", *_scales(scheme, "2 * inter", "hidden"))),
            Operand("down", "uint8", ("experts", "hidden", "down_bytes")),
            Operand("down_scale", "float32", ("experts", *_scales(scheme, "hidden", "inter"))),
        ),
        outputs=(Operand("y", dtype, ("rows", "hidden")),),
        launches=(
            *([_splitting()] if is_split else []),
            *routing(regime, False, experts, tile),
            *(
                dataclasses.replace(launch, constants={**launch.constants, **constants})
                for launch in (gate_up, down)
            ),
            combination(),
        ),
        attributes=("top_k", "normalize", "format"),
        symbols={"inter": f"{per_byte} * down_bytes", **symbols(regime, False, tile)},
        scratch=(
            *scratch(dtype, regime),
            *([Operand("split", dtype, ("rows", "hidden"))] if is_split else []),
        ),
        when=f"format == {scheme.format} and {whole_groups}{condition(regime, experts)}",
    )


def _tile(target: str, scheme: Scheme, regime: str) -> Tile:
    """The block of the matrix products; its depth counts bytes.

    Decode is as in MoE: 384 blocks of gate_up for one token of the 30B Thinker; a step reads 4 KiB of weights
    (INT4: 2 KiB). In prefill, except on Hopper and its successor, every warp decodes the weights that it
    multiplies: taller tiles would decode the same weights more often.
    """
    is_int4 = scheme.format == INT4
    if regime == "decode":
        return Tile(ROWS, 32, 64, warps=4, stages=6) if is_int4 else Tile(ROWS, 32, 128, warps=4, stages=5)
    rows = 128 if target in ("sm90", "sm100") else 64
    depth = 32 if is_int4 else 128 if rows == 64 and scheme.inputs == 128 else 64
    return Tile(rows, 128, depth, warps=8, stages=3)


def _scales(scheme: Scheme, outputs: str, inputs: str) -> tuple[str, str]:
    return (
        outputs if scheme.outputs == 1 else f"ceil_div({outputs}, {scheme.outputs})",
        f"ceil_div({inputs}, {scheme.inputs})" if scheme.inputs else "1",
    )


def _splitting() -> Launch:
    sizes, grid = (Scalar("hidden", "hidden", multiple=16),), ("rows", "ceil_div(hidden, 1024)", "1")
    return Launch("quantized_moe.split_columns", ("x",), sizes, ("split",), grid, {"BLOCK": 1024}, stages=1)
