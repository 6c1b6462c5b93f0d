"""The GPU programs of MoE: routing, two grouped matrix products and a weighted sum.

QuantizedMoE replaces the products and uses the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...runtime.kernels.contract import Launch, Operand, Program, Scalar

DTYPES = ("bfloat16", "float16")
EXPERTS = (128, 512)
"""The number of experts that a routing kernel holds in registers.

The smaller kernel is faster and needs a multiple of 16 experts: a row then lies in one warp, which waits for
no other.
"""
ROWS = 16
"""Rows of a routing block, and the most rows of decode: the smallest tile of the tensor cores."""
REGIMES = {"decode": f"rows <= {ROWS}", "batch": "rows * top_k <= 16 * experts", "prefill": "rows >= 0"}
"""The regimes with their conditions; the first whose condition holds is used."""


@dataclass(frozen=True)
class Tile:
    """The block of a grouped matrix product."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int

    @property
    def constants(self) -> Mapping[str, int]:
        return {"BLOCK_M": self.rows, "BLOCK_N": self.columns, "BLOCK_K": self.depth}


DECODE = Tile(rows=ROWS, columns=32, depth=128, warps=4, stages=5)
"""One token of the 30B Thinker makes 8 * 1536 / 32 = 384 blocks of gate_up and 512 of down: 3 and 4 per SM.

All blocks run at once, each with four tiles of 8 KiB of weights in flight. They need 48 KiB of shared memory
with the tiles of x; the smaller chips hold two blocks.
"""
BATCH = Tile(rows=32, columns=64, depth=128, warps=4, stages=4)
"""For up to 16 rows per expert on average: few experts have more than one tile; the weights limit the
speed."""
_LARGE = Tile(128, 256, 64, warps=8, stages=4)
"""192 KiB of shared memory.

SMs do not share tiles, so smaller tiles would exceed the bandwidth of the L2 cache.
"""
PREFILL = {
    "sm80": Tile(128, 128, 64, warps=8, stages=4),
    "sm86": Tile(128, 128, 32, warps=8, stages=4),
    "sm89": Tile(128, 128, 32, warps=8, stages=4),
    "sm90": _LARGE,
    "sm100": _LARGE,
    "sm120": Tile(128, 128, 32, warps=8, stages=4),
}
FLOAT32 = Tile(32, 64, 32, warps=4, stages=2)


def programs(target: str) -> list[Program]:
    """Every regime per dtype, with and without a shared expert.

    float32 exists for parity checks only, always as prefill.
    """
    made = [
        _program(target, dtype, regime, shared, experts)
        for shared in (False, True)
        for dtype in DTYPES
        for regime in REGIMES
        for experts in EXPERTS
    ]
    return [*made, _program(target, "float32", "prefill", False, EXPERTS[-1])]


def _program(target: str, dtype: str, regime: str, shared: bool, experts: int) -> Program:
    tile = (
        FLOAT32
        if dtype == "float32"
        else {"decode": DECODE, "batch": BATCH, "prefill": PREFILL[target]}[regime]
    )
    matrices = "experts + 1" if shared else "experts"
    return Program(
        op="MoE",
        name="-".join((dtype, *(["shared"] if shared else []), regime, f"{experts}-experts")),
        inputs=(
            Operand("x", dtype, ("*rows", "hidden")),
            Operand("router_logits", dtype, ("*rows", "experts")),
            Operand("gate_up", dtype, (matrices, "2 * inter", "hidden")),
            Operand("down", dtype, (matrices, "hidden", "inter")),
            *([Operand("shared_gate", dtype, ("*rows",))] if shared else []),
        ),
        outputs=(Operand("y", dtype, ("rows", "hidden")),),
        launches=(
            *routing(regime, shared, experts, tile),
            product(
                "moe.gate_up",
                ("x", "gate_up", "order", "block"),
                ("hidden", "inter", "slots"),
                "activated",
                "2 * inter",
                tile,
            ),
            product(
                "moe.down",
                ("activated", "down", "order", "block"),
                ("inter", "hidden"),
                "partial",
                "hidden",
                tile,
            ),
            combination(),
        ),
        attributes=("top_k", "normalize"),
        symbols=symbols(regime, shared, tile),
        scratch=scratch(dtype, regime),
        when=condition(regime, experts),
    )


def symbols(regime: str, shared: bool, tile: Tile) -> dict[str, str]:
    """Expressions of the counts; `blocks` is a maximum, as an expert may fill its last block in part."""
    used = "min(experts, rows * top_k)"
    routed = used if regime == "decode" else f"(rows * top_k + {used} * {tile.rows - 1}) // {tile.rows}"
    return {
        "slots": f"top_k + {int(shared)}",
        "assignments": "rows * slots",
        "blocks": f"{routed} + ceil_div(rows, {tile.rows})" if shared else routed,
        "row_blocks": f"ceil_div(rows, {ROWS})",
    }


def condition(regime: str, experts: int) -> str:
    """The `when` condition on the sizes; decode takes no more rows than one tile has."""
    held = "experts % 16 == 0 and " if experts == EXPERTS[0] else ""
    return (
        f"hidden % 16 == 0 and inter % 16 == 0 and top_k <= experts and {held}experts <= {experts} "
        f"and {REGIMES[regime]}"
    )


def scratch(dtype: str, regime: str) -> tuple[Operand, ...]:
    """The tensors that the launches pass on."""
    sorting = (
        Operand("chosen", "int32", ("rows", "top_k")),
        Operand("rank", "int32", ("rows", "top_k")),
        Operand("count", "int32", ("row_blocks", "experts")),
        Operand("before", "int32", ("row_blocks", "experts")),
        Operand("total", "int32", ("experts",)),
        Operand("start", "int32", ("experts",)),
    )
    return (
        Operand("share", "float32", ("assignments",)),
        Operand("order", "int32", ("assignments",)),
        Operand("block", "int32", ("blocks", "3")),
        *(() if regime == "decode" else sorting),
        Operand("activated", dtype, ("assignments", "inter")),
        Operand("partial", dtype, ("assignments", "hidden")),
    )


def routing(regime: str, shared: bool, experts: int, tile: Tile) -> tuple[Launch, ...]:
    """The launches that compute share, order and block."""
    # The second is not read without a shared expert.
    logits = ("router_logits", "shared_gate" if shared else "router_logits")
    sizes = tuple(Scalar(name, name) for name in ("rows", "experts", "top_k"))
    constants = {"ROWS": ROWS, "EXPERTS": experts, "SHARED": int(shared)}
    given = (
        Scalar("rows", "rows"),
        Scalar("experts", "experts", multiple=16 if experts == EXPERTS[0] else 1),
        *sizes[2:],
        Scalar("normalize", "normalize"),
    )
    if regime == "decode":
        return (
            Launch(
                "moe.route_decode",
                logits,
                given,
                ("share", "order", "block"),
                ("min(rows, 1)", "1", "1"),
                constants,
                warps=8,
                stages=1,
            ),
        )
    return (
        Launch(
            "moe.route_prefill",
            logits,
            given,
            ("share", "chosen", "rank", "count"),
            ("row_blocks", "1", "1"),
            constants,
            warps=8,
            stages=1,
        ),
        Launch(
            "moe.sum_counts",
            ("count",),
            (Scalar("row_blocks", "row_blocks"), Scalar("experts", "experts")),
            ("before", "total"),
            ("ceil_div(experts, 32) * min(row_blocks, 1)", "1", "1"),
            {"BLOCKS": 128, "EXPERTS": 32},
            stages=2,
        ),
        Launch(
            "moe.fill_blocks",
            ("total", "chosen"),
            (*sizes, Scalar("blocks", "blocks")),
            ("start", "block"),
            ("min(rows, 1)", "1", "1"),
            {"EXPERTS": experts, "BLOCK_M": tile.rows, "SHARED": int(shared)},
            stages=1,
        ),
        Launch(
            "moe.sort_assignments",
            ("chosen", "rank", "before", "start"),
            sizes,
            ("order",),
            ("ceil_div(assignments, 512)", "1", "1"),
            {"ROWS": ROWS, "BLOCK": 512, "SHARED": int(shared)},
            stages=1,
        ),
    )


def product(
    kernel: str, inputs: tuple[str, ...], sizes: tuple[str, ...], output: str, columns: str, tile: Tile
) -> Launch:
    """The launch of a grouped matrix product; `sizes` that count elements are multiples of 16."""
    scalars = tuple(Scalar(name, name, multiple=1 if name == "slots" else 16) for name in sizes)
    return Launch(
        kernel,
        inputs,
        scalars,
        (output,),
        (f"ceil_div({columns}, {tile.columns})", "blocks", "1"),
        tile.constants,
        tile.warps,
        tile.stages,
    )


def combination() -> Launch:
    """The launch of the weighted sum of each row's slots."""
    scalars, grid = (
        (Scalar("hidden", "hidden", multiple=16), Scalar("slots", "slots")),
        ("rows", "ceil_div(hidden, 256)", "1"),
    )
    return Launch(
        "moe.combine", ("partial", "share"), scalars, ("y",), grid, {"SLOTS": 8, "BLOCK": 256}, stages=1
    )
