"""A chunk's matrix of writes, (I + A)^-1 diag(beta).

A[t, j] = beta_t e^(g_t - g_j) k_t . k_j below the diagonal, and 0 elsewhere.

Blocks of the inverse grow from 1 to 64. The inverse of [[P, 0], [C, Q]] has the corner -Q^-1 C P^-1, so a
doubling needs the corners C, computed from their own rows and columns of the keys, and two small products.
For the delta rule every block of the inverse holds products of contractions. So its entries are at most 1,
and rounding errors do not grow as they would in a power series of A.
"""

import triton
import triton.language as tl


@triton.jit
def invert_keys(
    key_ptr,
    factor_ptr,
    query_length_ptr,
    tokens,
    key_heads,
    value_heads,
    write_ptr,
    KEY_DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write `write` [batch, value_heads, chunks, 64, 64] from keys and `factor` (see `compare_queries`).

    Chunks of padding alone are not written. Grid: chunks, value heads, streams.
    """
    stream = tl.program_id(2).to(tl.int64)
    chunk, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(query_length_ptr + stream).to(tl.int32) - chunk * CHUNK
    if length <= 0:
        return
    matrix = (stream * value_heads + head) * tl.cdiv(tokens, CHUNK) + chunk
    key_ptr += ((stream * tokens + chunk * CHUNK) * key_heads + head // (value_heads // key_heads)) * KEY_DIM
    stride = key_heads * KEY_DIM
    factor_ptr += matrix * (8 * CHUNK)
    write_ptr += matrix * (CHUNK * CHUNK)
    # Four blocks of 16 on the diagonal, one per warp.
    token = tl.arange(0, 4)[:, None] * 16 + tl.arange(0, 16)[None, :]
    i, j = tl.arange(0, 16)[None, :, None], tl.arange(0, 16)[None, None, :]
    lower = tl.where(
        i > j, _entries(key_ptr, stride, factor_ptr, token, token, length, KEY_DIM, CHUNK, PRECISION), 0.0
    )
    inverse = tl.where(i == j, 1.0, tl.where(i // 2 == j // 2, -lower, 0.0))
    for power in tl.static_range(1, 4):
        corners = tl.where((i >> (power + 1) == j >> (power + 1)) & (i >> power != j >> power), lower, 0.0)
        inverse -= tl.dot(
            tl.dot(inverse, corners, input_precision=PRECISION), inverse, input_precision=PRECISION
        )
    _store(write_ptr, factor_ptr, inverse, token, token, CHUNK)
    # Two corners between neighbours give blocks of 32.
    above = tl.arange(0, 2)[:, None] * 32 + tl.arange(0, 16)[None, :]
    corner = _entries(key_ptr, stride, factor_ptr, above + 16, above, length, KEY_DIM, CHUNK, PRECISION)
    first, second = tl.split(tl.permute(tl.reshape(inverse, [2, 2, 16, 16]), [0, 2, 3, 1]))
    corner = -tl.dot(tl.dot(second, corner, input_precision=PRECISION), first, input_precision=PRECISION)
    zeros = tl.zeros([2, 16, 16], tl.float32)
    _store(write_ptr, factor_ptr, corner, above + 16, above, CHUNK)
    _store(write_ptr, factor_ptr, zeros, above, above + 16, CHUNK)
    # One corner between these gives the whole matrix.
    # [2, row, column, column's half, row's half]
    pair = tl.join(tl.join(first, zeros), tl.join(corner, second))
    upper, under = tl.split(tl.permute(tl.reshape(tl.permute(pair, [0, 4, 1, 3, 2]), [2, 32, 32]), [1, 2, 0]))
    half = tl.arange(0, 32)
    last = _entries(key_ptr, stride, factor_ptr, half + 32, half, length, KEY_DIM, CHUNK, PRECISION)
    last = -tl.dot(tl.dot(under, last, input_precision=PRECISION), upper, input_precision=PRECISION)
    _store(write_ptr, factor_ptr, last, half + 32, half, CHUNK)
    _store(write_ptr, factor_ptr, tl.zeros([32, 32], tl.float32), half, half + 32, CHUNK)


@triton.jit
def _entries(
    key_ptr,
    stride,
    factor_ptr,
    rows,
    columns,
    length,
    KEY_DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A[rows, columns] for token indices [size] or [blocks, size]; undefined on and above the diagonal."""
    axis: tl.constexpr = len(rows.shape)
    part = tl.arange(0, 64)
    row_ptr = key_ptr + tl.expand_dims(rows, axis) * stride + part
    column_ptr = key_ptr + tl.expand_dims(columns, axis) * stride + part
    row_mask, column_mask = tl.expand_dims(rows < length, axis), tl.expand_dims(columns < length, axis)
    row, column = tl.load(row_ptr, mask=row_mask, other=0.0), tl.load(column_ptr, mask=column_mask, other=0.0)
    products = _dot_transposed(row, column, PRECISION)
    for start in tl.static_range(64, KEY_DIM, 64):
        next_row, next_column = (
            tl.load(row_ptr + start, mask=row_mask, other=0.0),
            tl.load(column_ptr + start, mask=column_mask, other=0.0),
        )
        products += _dot_transposed(next_row, next_column, PRECISION)
    high = tl.expand_dims(tl.load(factor_ptr + 4 * CHUNK + rows), axis) - tl.expand_dims(
        tl.load(factor_ptr + 4 * CHUNK + columns), axis - 1
    )
    low = tl.expand_dims(tl.load(factor_ptr + 5 * CHUNK + rows), axis) - tl.expand_dims(
        tl.load(factor_ptr + 5 * CHUNK + columns), axis - 1
    )
    row_scale = tl.load(factor_ptr + 6 * CHUNK + rows) * tl.load(factor_ptr + 7 * CHUNK + rows)
    column_scale = tl.load(factor_ptr + 6 * CHUNK + columns)
    return (
        products
        * tl.exp(tl.minimum(high + low, 0.0))
        * tl.expand_dims(row_scale, axis)
        * tl.expand_dims(column_scale, axis - 1)
    )


@triton.jit
def _dot_transposed(x, y, PRECISION: tl.constexpr):
    if len(x.shape) == 3:
        return tl.dot(x, tl.permute(y, [0, 2, 1]), input_precision=PRECISION)
    else:
        return tl.dot(x, tl.trans(y), input_precision=PRECISION)


@triton.jit
def _store(write_ptr, factor_ptr, blocks, rows, columns, CHUNK: tl.constexpr):
    """Store `blocks` of the inverse, each column times its beta."""
    axis: tl.constexpr = len(rows.shape)
    scaled = blocks * tl.expand_dims(tl.load(factor_ptr + 7 * CHUNK + columns), axis - 1)
    places = write_ptr + tl.expand_dims(rows, axis) * CHUNK + tl.expand_dims(columns, axis - 1)
    tl.store(places, scaled.to(write_ptr.dtype.element_ty))
