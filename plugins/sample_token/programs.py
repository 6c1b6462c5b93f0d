"""The GPU programs of SampleToken."""

from __future__ import annotations

from ...runtime.kernels.contract import Launch, Operand, Program, Scalar

DTYPES = ("bfloat16", "float16", "float32")
CAPACITY = 256
"""The largest number of candidates that are ranked against each other; a top_k of 50 has about 65."""
BLOCK = 2048
"""Ids per block of the large form: 75 blocks for 151,936 ids, 122 for 248,320."""
BLOCKS = 128
"""The most blocks of the large form: one tile compares all pairs of their 256 group maxima."""
SCAN = 8192
"""Ids that one block of the large form loads at once on the slow path, to use an SM's bandwidth."""
SMALL = {2048: (8, 128), 4096: (16, 128), 8192: (16, 256)}
"""(warps, groups) of the small form by tile, with 8 or 16 ids per lane.

The predictor has 2,048 ids, Qwen3-Omni's Talker 3,072 and Qwen3.5-Omni's 5,120.
"""
_ROWS = ("noise", "temperature", "top_k", "top_p")


def programs(target: str) -> list[Program]:
    """Programs for vocabularies of one block, by tile, then for those of many blocks."""
    return [
        *(_small(dtype, tile) for dtype in DTYPES for tile in SMALL),
        *(_large(dtype) for dtype in DTYPES),
    ]


def _inputs(dtype: str) -> tuple[Operand, ...]:
    return (
        Operand("logits", dtype, ("rows", "vocab")),
        Operand("noise", "float32", ("rows",)),
        Operand("temperature", "float32", ("rows",)),
        Operand("top_k", "int64", ("rows",)),
        Operand("top_p", "float32", ("rows",)),
        Operand("repetition_penalty", "float32", ("rows",)),
        Operand("penalised", "bool", ("rows", "vocab")),
        Operand("suppressed", "bool", ("rows", "vocab")),
    )


def _small(dtype: str, tile: int) -> Program:
    # No alignment is assumed: one id per lane and load coalesces as well, and this layout suits every step,
    # so it never changes.
    warps, groups = SMALL[tile]
    return Program(
        op="SampleToken",
        name=f"{dtype}-{tile}",
        inputs=_inputs(dtype),
        outputs=(Operand("token", "int64", ("rows",)),),
        scratch=(
            Operand("drawn_scores", "float32", ("rows", str(CAPACITY))),
            Operand("drawn_ids", "int32", ("rows", str(CAPACITY))),
        ),
        launches=(
            Launch(
                kernel="sample_token.sample_small",
                inputs=("logits", *_ROWS, "repetition_penalty", "penalised", "suppressed"),
                scalars=(Scalar("vocab", "vocab"),),
                outputs=("token", "drawn_scores", "drawn_ids"),
                grid=("rows", "1", "1"),
                constants={"TILE": tile, "GROUPS": groups, "CAPACITY": CAPACITY},
                warps=warps,
                stages=1,
            ),
        ),
        when=f"vocab <= {tile}",
    )


def _large(dtype: str) -> Program:
    """Three launches, with 12 to 14 bytes per id: logits and masks are read, scores written and read again.

    Other traffic is a few kilobytes per row.
    """
    vocab, blocks = Scalar("vocab", "vocab", multiple=16), Scalar("blocks", "blocks")
    candidates = ("candidate_scores", "candidate_ids")
    return Program(
        op="SampleToken",
        name=f"{dtype}-large",
        inputs=_inputs(dtype),
        outputs=(Operand("token", "int64", ("rows",)),),
        scratch=(
            Operand("scores", "float32", ("rows", "vocab")),
            Operand("maxima", "float32", ("rows", "blocks", "2")),
            Operand("sums", "float32", ("rows", "blocks")),
            Operand("counts", "int32", ("rows", "blocks")),
            Operand("candidate_scores", "float32", ("rows", "blocks", str(CAPACITY))),
            Operand("candidate_ids", "int32", ("rows", "blocks", str(CAPACITY))),
            Operand("drawn_scores", "float32", ("rows", str(CAPACITY))),
            Operand("drawn_ids", "int32", ("rows", str(CAPACITY))),
        ),
        launches=(
            Launch(
                kernel="sample_token.sample_large_scores",
                inputs=("logits", "temperature", "repetition_penalty", "penalised", "suppressed"),
                scalars=(vocab, blocks),
                outputs=("scores", "maxima", "sums"),
                grid=("blocks", "rows", "1"),
                constants={"BLOCK": BLOCK},
                stages=1,
            ),
            Launch(
                kernel="sample_token.sample_large_candidates",
                inputs=("top_k", "scores", "maxima"),
                scalars=(Scalar("vocab", "vocab"), blocks),
                outputs=("counts", *candidates),
                grid=("blocks", "rows", "1"),
                constants={"BLOCK": BLOCK, "BLOCKS": BLOCKS, "CAPACITY": CAPACITY},
                warps=8,
                stages=1,
            ),
            Launch(
                kernel="sample_token.sample_large_draw",
                inputs=(*_ROWS, "scores", "maxima", "sums", "counts", *candidates),
                scalars=(vocab, blocks),
                outputs=("token", "drawn_scores", "drawn_ids"),
                grid=("rows", "1", "1"),
                constants={"BLOCK": BLOCK, "BLOCKS": BLOCKS, "CAPACITY": CAPACITY, "SCAN": SCAN},
                warps=8,
                stages=1,
            ),
        ),
        symbols={"blocks": f"ceil_div(vocab, {BLOCK})"},
        when=f"vocab % 16 == 0 and vocab <= {BLOCK * BLOCKS}",
    )
