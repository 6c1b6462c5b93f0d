"""The GPU programs of GatedDeltaRule: the plain op, and a fused form with the gated norm (see `gated_norm`).

The fused form has the further inputs z and norm_weight.
"""

from __future__ import annotations

from ...runtime.kernels.contract import MAX_SHARED_BYTES, Launch, Operand, Program, Scalar
from .reference import EPSILON

DTYPES = ("bfloat16", "float16", "float32")
KEY_DIMS = (64, 128, 256)
CHUNK = 64
DECODE_TOKENS = 8
"""The most tokens of decode, which computes one token after another.

A chunk costs as much with one row as with 64. Estimated from latencies, not measured.
"""
NORM_ROWS = 16
SIZES = (Scalar("tokens", "tokens"), Scalar("key_heads", "key_heads"), Scalar("value_heads", "value_heads"))
INPUTS = ("query", "key", "value", "a", "b", "dt_bias", "decay_scale", "past", "query_length")


def programs(target: str) -> list[Program]:
    """Decode and prefill programs per dtype and key size, plain and fused.

    The plain ones accept value sizes that are multiples of 32, the fused ones the key's size. float32 has
    decode alone, for any number of tokens: no model runs in it on a GPU, and its chunk tiles do not fit the
    registers.
    """
    return [
        _program(target, dtype, key_dim, regime, fused)
        for dtype in DTYPES
        for key_dim in KEY_DIMS
        for regime in (("decode",) if dtype == "float32" else ("decode", "prefill"))
        for fused in (False, True)
    ]


def _program(target: str, dtype: str, key_dim: int, regime: str, fused: bool) -> Program:
    value_dim = str(key_dim) if fused else "value_dim"
    keys, values, heads = (
        ("batch", "tokens", f"key_heads * {key_dim}"),
        ("batch", "tokens", f"value_heads * {value_dim}"),
        ("batch", "tokens", "value_heads"),
    )
    state, square = (
        ("batch", "value_heads", str(key_dim), value_dim),
        ("batch", "value_heads", "chunks", str(CHUNK), str(CHUNK)),
    )
    # A head's state of 256 by 256 would fill all registers of a multiprocessor.
    in_one_launch = fused and regime == "decode" and key_dim <= 128
    y = "attended" if fused and not in_one_launch else "y"
    scratch = [Operand("attended", dtype, values)] if y == "attended" else []
    if in_one_launch:
        launches = [_step_and_norm(key_dim)]
    elif regime == "decode":
        launches = [_step(key_dim, value_dim, y)]
    else:
        launches = [_compare(key_dim), _invert(dtype, key_dim), _carry(target, key_dim, value_dim, y)]
        scratch += [
            Operand("attend", dtype, square),
            Operand("factor", "float32", (*square[:3], "8", str(CHUNK))),
            Operand("write", dtype, square),
        ]
    limits = ["value_heads % key_heads == 0"]
    limits += [f"tokens <= {DECODE_TOKENS}"] if regime == "decode" and dtype != "float32" else []
    limits += [] if fused else ["value_dim % 32 == 0"]
    return Program(
        op="GatedDeltaRule",
        name=f"{dtype}-{key_dim}-{regime}{'-norm' if fused else ''}",
        inputs=(
            Operand("query", dtype, keys),
            Operand("key", dtype, keys),
            Operand("value", dtype, values),
            Operand("a", dtype, heads),
            Operand("b", dtype, heads),
            Operand("dt_bias", dtype, ("value_heads",)),
            Operand("decay_scale", dtype, ("value_heads",)),
            Operand("past", "float32", state),
            Operand("query_length", "int64", ("batch",)),
            *((Operand("z", dtype, values), Operand("norm_weight", dtype, (value_dim,))) if fused else ()),
        ),
        outputs=(Operand("y", dtype, values), Operand("present", "float32", state)),
        launches=(*launches, *([_norm(key_dim)] if y == "attended" else [])),
        attributes=("key_heads", "value_heads"),
        symbols={"chunks": f"ceil_div(tokens, {CHUNK})"} if regime == "prefill" else {},
        scratch=tuple(scratch),
        when=" and ".join(limits),
    )


def _step(key_dim: int, value_dim: str, y: str) -> Launch:
    # 32 columns are 128 bytes of each row of the state. 32 heads of 128 then make 128 blocks for an H100's
    # 132 multiprocessors.
    return Launch(
        kernel="gated_delta_rule.step",
        inputs=INPUTS,
        scalars=(*SIZES, Scalar("value_dim", value_dim, multiple=16)),
        outputs=(y, "present"),
        grid=(f"{value_dim} // 32", "value_heads", "batch"),
        constants={"KEY_DIM": key_dim, "BLOCK_VALUES": 32, "EPSILON": EPSILON},
    )


def _step_and_norm(dim: int) -> Launch:
    return Launch(
        kernel="gated_delta_rule.step_and_norm",
        inputs=(*INPUTS, "z", "norm_weight"),
        scalars=SIZES,
        outputs=("y", "present"),
        grid=("value_heads", "batch", "1"),
        constants={"KEY_DIM": dim, "VALUE_DIM": dim, "EPSILON": EPSILON},
        # A state of 128 by 128 is 64 registers of each thread of 8 warps; all of it loads at once.
        warps=dim // 16,
    )


def _compare(key_dim: int) -> Launch:
    return Launch(
        kernel="gated_delta_rule.compare_queries",
        inputs=("query", "key", "a", "b", "dt_bias", "decay_scale", "query_length"),
        scalars=SIZES,
        outputs=("attend", "factor"),
        grid=("chunks", "value_heads", "batch"),
        constants={"KEY_DIM": key_dim, "CHUNK": CHUNK, "EPSILON": EPSILON},
        warps=8 if key_dim == 256 else 4,
        stages=1,
    )


def _invert(dtype: str, key_dim: int) -> Launch:
    # The inverse is rounded to the dtype. tf32 has three bits more than bfloat16 but no more than float16,
    # where three products replace one.
    return Launch(
        kernel="gated_delta_rule.invert_keys",
        inputs=("key", "factor", "query_length"),
        scalars=SIZES,
        outputs=("write",),
        grid=("chunks", "value_heads", "batch"),
        constants={
            "KEY_DIM": key_dim,
            "CHUNK": CHUNK,
            "PRECISION": "tf32" if dtype == "bfloat16" else "tf32x3",
        },
        stages=1,
    )


def _carry(target: str, key_dim: int, value_dim: str, y: str) -> Launch:
    # Few columns, for many blocks: only this launch loops over the chunks. Eight warps and, for keys of 256,
    # 16 columns avoid register spills to local memory.
    block_values = 16 if key_dim == 256 else 32
    is_large = MAX_SHARED_BYTES[target] > 160 * 1024
    return Launch(
        kernel="gated_delta_rule.carry_state",
        inputs=("query", "key", "value", "past", "query_length", "write", "attend", "factor"),
        scalars=(*SIZES, Scalar("value_dim", value_dim, multiple=16)),
        outputs=(y, "present"),
        grid=(f"{value_dim} // {block_values}", "value_heads", "batch"),
        constants={
            "KEY_DIM": key_dim,
            "CHUNK": CHUNK,
            "BLOCK_VALUES": block_values,
            # sm90's wgmma reads a tile of shared memory in both directions.
            "RELOAD": target != "sm90" and (is_large or key_dim < 256),
        },
        warps=8,
        stages=3 if is_large and key_dim < 256 else 2,
    )


def _norm(value_dim: int) -> Launch:
    return Launch(
        kernel="gated_delta_rule.gated_norm",
        inputs=("attended", "z", "norm_weight", "query_length"),
        scalars=(Scalar("tokens", "tokens"), Scalar("value_heads", "value_heads")),
        outputs=("y",),
        grid=(f"ceil_div(tokens * value_heads, {NORM_ROWS})", "batch", "1"),
        constants={"VALUE_DIM": value_dim, "BLOCK_ROWS": NORM_ROWS, "EPSILON": EPSILON},
        stages=1,
    )
