"""The GPU programs of AriaStep."""

from __future__ import annotations

from ...runtime.kernels.contract import DTYPE_BYTES, Launch, Operand, Program, Scalar

DTYPES = ("bfloat16", "float16", "float32")
GROUPS = 16
"""The largest number of codebooks in a frame."""


def programs(target: str) -> list[Program]:
    """One program per dtype of the embeddings. Policies are inputs, not programs."""
    return [_program(dtype) for dtype in DTYPES]


def _program(dtype: str) -> Program:
    # One warp with 16 bytes per lane: a lane holds the rows of all codebooks for its columns, so their sum
    # needs no exchange between lanes.
    block = 32 * 16 // DTYPE_BYTES[dtype]
    return Program(
        op="AriaStep",
        name=dtype,
        inputs=(
            Operand("need", "int64", ("table",)),
            Operand("text_ids", "int64", ("batch", "slots")),
            Operand("text_length", "int64", ("batch",)),
            Operand("text_complete", "bool", ("batch",)),
            Operand("codes", "int64", ("batch", "groups")),
            Operand("counters", "int64", ("batch", "4")),
            Operand("text_embedding", dtype, ("vocab", "hidden")),
            Operand("code_embedding", dtype, ("entries", "hidden")),
        ),
        outputs=(
            Operand("row", dtype, ("batch", "hidden")),
            Operand("query_length", "int64", ("batch",)),
            Operand("sample", "bool", ("batch",)),
            Operand("may_end", "bool", ("batch",)),
            Operand("present_counters", "int64", ("batch", "4")),
        ),
        launches=(
            Launch(
                kernel="aria_step.aria_step",
                inputs=(
                    "need",
                    "text_ids",
                    "text_length",
                    "text_complete",
                    "codes",
                    "counters",
                    "text_embedding",
                    "code_embedding",
                ),
                scalars=(
                    *(Scalar(name, name) for name in ("table", "slots", "groups", "codebook")),
                    Scalar("hidden", "hidden", multiple=16),
                    *(Scalar(name, name) for name in ("end_id", "pad_id", "summed", "end_anywhere")),
                ),
                outputs=("row", "query_length", "sample", "may_end", "present_counters"),
                grid=(f"ceil_div(hidden, {block})", "batch", "1"),
                constants={"GROUPS": GROUPS, "BLOCK": block},
                warps=1,
                stages=1,
            ),
        ),
        attributes=("end_id", "pad_id", "summed", "end_anywhere"),
        symbols={"codebook": "entries // groups"},
        when=(
            f"hidden % 16 == 0 and groups <= {GROUPS} and entries == groups * codebook and "
            "table > 0 and slots > 0"
        ),
    )
