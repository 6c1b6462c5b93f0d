"""The kernels of QuantizedMoE: two grouped matrix products that decode weights; the other kernels are MoE's.

A byte of INT4 holds two columns. To avoid interleaving them in registers, a product is the sum of two: over
the even and over the odd columns. The other operand is therefore laid out as [.., 2, columns / 2]:
`split_columns` reorders x, and gate_up writes its results so.
"""

import triton
import triton.language as tl

from ..moe.kernels import swiglu

FP8 = tl.constexpr(0)
INT8 = tl.constexpr(1)
INT4 = tl.constexpr(2)


@triton.jit
def split_columns(x_ptr, hidden, split_ptr, BLOCK: tl.constexpr):
    """split [rows, 2, hidden / 2]: even columns, then odd ones. Grid: rows, runs of columns."""
    row = tl.program_id(0).to(tl.int64) * hidden
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    even, odd = tl.split(
        tl.reshape(tl.load(x_ptr + row + column, mask=column < hidden, other=0.0), [BLOCK // 2, 2])
    )
    half = hidden // 2
    pair = tl.program_id(1) * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
    tl.store(split_ptr + row + pair, even, mask=pair < half)
    tl.store(split_ptr + row + half + pair, odd, mask=pair < half)


@triton.jit
def decode_byte(bits, dtype: tl.constexpr, FORMAT: tl.constexpr):
    """The numbers of INT8, or those of FP8 divided by 256, as `dtype`: exact in float16 and bfloat16."""
    if FORMAT == INT8:
        return bits.to(tl.int8, bitcast=True).to(tl.float32).to(dtype)
    # Triton has E4M3 with a bias of 15 on every GPU. With the usual bias of 7 it is the same number times
    # 256; only the places of its bits differ from float16.
    return bits.to(tl.float8e4b15, bitcast=True).to(tl.float16).to(dtype)


@triton.jit
def decode_low(bits):
    """The INT4 number in the low bits of a byte, as float32, placed in the lowest bits of 2 ** 23."""
    return ((bits.to(tl.int32) & 0x0F) | 0x4B000000).to(tl.float32, bitcast=True) - 8388616.0


@triton.jit
def decode_high(bits):
    """The INT4 number in the high bits of a byte, as float32, without a shift: placed in bits of 2 ** 19."""
    return ((bits.to(tl.int32) & 0xF0) | 0x49000000).to(tl.float32, bitcast=True) - 524296.0


@triton.jit
def scale_groups(numbers, scale, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, GROUPS: tl.constexpr):
    """numbers [BLOCK_K, BLOCK_N] times scale [GROUPS, BLOCK_N]; each scale is for BLOCK_K / GROUPS rows."""
    grouped = tl.reshape(numbers, [GROUPS, BLOCK_K // GROUPS, BLOCK_N]) * scale[:, None, :]
    return tl.reshape(grouped, [BLOCK_K, BLOCK_N])


@triton.jit
def multiply_rows(
    a_ptrs,
    odd,
    is_row,
    weight_ptrs,
    is_column,
    scale_ptrs,
    depth,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    GROUP: tl.constexpr,
):
    """moe.kernels.multiply_rows for quantised weights of `depth` bytes per column.

    `odd` is the offset of the odd columns of a from the even ones (INT4). scale_ptrs [BLOCK_N] point to the
    first scale of each column. A scale is for GROUP bytes of a column, or for all if GROUP is 0. INT4 weights
    are scaled before the product where a step has several groups, or has at least twice as many rows as bytes
    of depth. Elsewhere float32 sums are scaled.
    """
    dtype: tl.constexpr = a_ptrs.dtype.element_ty
    GROUPS: tl.constexpr = BLOCK_K // GROUP if GROUP != 0 and BLOCK_K > GROUP else 1  # per step
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, depth, BLOCK_K):
        inside = k < depth - first
        a = tl.load(a_ptrs, mask=is_row[:, None] & inside[None, :], other=0.0)
        bits = tl.load(weight_ptrs, mask=is_column[None, :] & inside[:, None], other=0)
        if FORMAT == INT4:
            a_odd = tl.load(a_ptrs + odd, mask=is_row[:, None] & inside[None, :], other=0.0)
            low = decode_low(bits)
            high = decode_high(bits)
            if GROUPS > 1 or BLOCK_M >= 2 * BLOCK_K:
                group = first // GROUP + tl.arange(0, GROUPS)
                there = (group * GROUP < depth)[:, None] & is_column[None, :]
                scale = tl.load(scale_ptrs[None, :] + group[:, None], mask=there, other=0.0)
                low = scale_groups(low, scale, BLOCK_K, BLOCK_N, GROUPS)
                high = scale_groups(high, scale, BLOCK_K, BLOCK_N, GROUPS)
                total = tl.dot(a_odd, high.to(dtype), tl.dot(a, low.to(dtype), total))
            else:
                product = tl.dot(a_odd, high.to(dtype), tl.dot(a, low.to(dtype)))
                total += product * tl.load(scale_ptrs + first // GROUP, mask=is_column, other=0.0)[None, :]
        elif GROUP == 0:
            total = tl.dot(a, decode_byte(bits, dtype, FORMAT), total)
        else:
            total += (
                tl.dot(a, decode_byte(bits, dtype, FORMAT))
                * tl.load(scale_ptrs + first // GROUP, mask=is_column, other=0.0)[None, :]
            )
        a_ptrs += BLOCK_K
        weight_ptrs += BLOCK_K
    if GROUP == 0:
        total *= tl.load(scale_ptrs, mask=is_column, other=0.0)[None, :]
    if FORMAT == FP8:
        total *= 256.0
    return total


@triton.jit
def gate_up(
    x_ptr,
    weight_ptr,
    scale_ptr,
    order_ptr,
    block_ptr,
    hidden,
    inter,
    slots,
    activated_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    SCALE_OUTPUTS: tl.constexpr,
    SCALE_INPUTS: tl.constexpr,
):
    """activated [assignments in order, inter], or [.., 2, inter / 2] for INT4.

    Grid: runs of BLOCK_N rows of gate_up, blocks (see moe.kernels).
    """
    table = block_ptr + tl.program_id(1) * 3
    count = tl.load(table + 2)
    if count == 0:
        return
    expert = tl.load(table).to(tl.int64)
    place = tl.arange(0, BLOCK_M)
    first = tl.load(table + 1)
    row = tl.load(order_ptr + first + place, mask=place < count, other=0) // slots
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    BYTES: tl.constexpr = 2 if FORMAT == INT4 else 1  # columns in a byte
    depth = tl.multiple_of(hidden // BYTES, 16)  # INT4 has whole groups
    x_ptrs = x_ptr + row.to(tl.int64)[:, None] * hidden + k[None, :]
    weight_ptrs = weight_ptr + (expert * 2 * inter + column[None, :]) * depth + k[:, None]
    scales = tl.cdiv(hidden, SCALE_INPUTS) if SCALE_INPUTS != 0 else 1
    scale_ptrs = scale_ptr + (expert * tl.cdiv(2 * inter, SCALE_OUTPUTS) + column // SCALE_OUTPUTS) * scales
    GROUP: tl.constexpr = SCALE_INPUTS // BYTES
    total = multiply_rows(
        x_ptrs,
        depth,
        place < count,
        weight_ptrs,
        column < 2 * inter,
        scale_ptrs,
        depth,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        FORMAT,
        GROUP,
    )
    activated = swiglu(total, BLOCK_M, BLOCK_N).to(activated_ptr.dtype.element_ty)
    out_ptrs = activated_ptr + (first + place).to(tl.int64)[:, None] * inter
    if FORMAT == INT4:
        even, odd = tl.split(tl.reshape(activated, [BLOCK_M, BLOCK_N // 4, 2]))
        half = inter // 2
        pair = tl.program_id(0) * (BLOCK_N // 4) + tl.arange(0, BLOCK_N // 4)
        tl.store(out_ptrs + pair[None, :], even, mask=(place < count)[:, None] & (pair < half)[None, :])
        tl.store(out_ptrs + half + pair[None, :], odd, mask=(place < count)[:, None] & (pair < half)[None, :])
    else:
        out = tl.program_id(0) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
        tl.store(out_ptrs + out[None, :], activated, mask=(place < count)[:, None] & (out < inter)[None, :])


@triton.jit
def down(
    activated_ptr,
    weight_ptr,
    scale_ptr,
    order_ptr,
    block_ptr,
    inter,
    hidden,
    partial_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    FORMAT: tl.constexpr,
    SCALE_OUTPUTS: tl.constexpr,
    SCALE_INPUTS: tl.constexpr,
):
    """partial [assignments, hidden], in row order. Grid: runs of BLOCK_N columns, blocks."""
    table = block_ptr + tl.program_id(1) * 3
    count = tl.load(table + 2)
    if count == 0:
        return
    expert = tl.load(table).to(tl.int64)
    place = tl.arange(0, BLOCK_M)
    first = tl.load(table + 1)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    BYTES: tl.constexpr = 2 if FORMAT == INT4 else 1
    depth = tl.multiple_of(inter // BYTES, 16)
    activated_ptrs = activated_ptr + (first + place).to(tl.int64)[:, None] * inter + k[None, :]
    weight_ptrs = weight_ptr + (expert * hidden + column[None, :]) * depth + k[:, None]
    scales = tl.cdiv(inter, SCALE_INPUTS) if SCALE_INPUTS != 0 else 1
    scale_ptrs = scale_ptr + (expert * tl.cdiv(hidden, SCALE_OUTPUTS) + column // SCALE_OUTPUTS) * scales
    GROUP: tl.constexpr = SCALE_INPUTS // BYTES
    total = multiply_rows(
        activated_ptrs,
        depth,
        place < count,
        weight_ptrs,
        column < hidden,
        scale_ptrs,
        depth,
        BLOCK_M,
        BLOCK_N,
        BLOCK_K,
        FORMAT,
        GROUP,
    )
    assignment = tl.load(order_ptr + first + place, mask=place < count, other=0)
    out_ptrs = partial_ptr + assignment.to(tl.int64)[:, None] * hidden + column[None, :]
    tl.store(
        out_ptrs,
        total.to(partial_ptr.dtype.element_ty),
        mask=(place < count)[:, None] & (column < hidden)[None, :],
    )
