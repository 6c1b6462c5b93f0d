"""Kernels of the gated delta rule token by token, and of the gated norm after it."""

import triton
import triton.language as tl

from .gates import log_decay


@triton.jit
def step(
    query_ptr,
    key_ptr,
    value_ptr,
    a_ptr,
    b_ptr,
    dt_bias_ptr,
    decay_scale_ptr,
    past_ptr,
    query_length_ptr,
    tokens,
    key_heads,
    value_heads,
    value_dim,
    y_ptr,
    present_ptr,
    KEY_DIM: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """A few tokens.

    A block keeps its columns of one head's state in registers, so the state is read and written once.

    Grid: runs of value columns, value heads, streams.
    """
    stream = tl.program_id(2).to(tl.int64)
    head = tl.program_id(1)
    column = tl.program_id(0) * BLOCK_VALUES + tl.arange(0, BLOCK_VALUES)
    tile = ((stream * value_heads + head) * KEY_DIM + tl.arange(0, KEY_DIM))[:, None] * value_dim + column[
        None, :
    ]
    state = tl.load(past_ptr + tile)
    length = tl.load(query_length_ptr + stream).to(tl.int32)
    for token in range(tokens):
        row, is_row = stream * tokens + token, token < length
        y, state = _token(
            query_ptr,
            key_ptr,
            value_ptr,
            a_ptr,
            b_ptr,
            dt_bias_ptr,
            decay_scale_ptr,
            row,
            head,
            key_heads,
            value_heads,
            value_dim,
            column,
            state,
            is_row,
            KEY_DIM,
            EPSILON,
        )
        tl.store(y_ptr + (row * value_heads + head) * value_dim + column, y.to(y_ptr.dtype.element_ty))
    tl.store(present_ptr + tile, state)


@triton.jit
def step_and_norm(
    query_ptr,
    key_ptr,
    value_ptr,
    a_ptr,
    b_ptr,
    dt_bias_ptr,
    decay_scale_ptr,
    past_ptr,
    query_length_ptr,
    z_ptr,
    norm_weight_ptr,
    tokens,
    key_heads,
    value_heads,
    y_ptr,
    present_ptr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """`step`, then the gated norm.

    A block holds the whole head, as the norm needs. Grid: value heads, streams.
    """
    stream = tl.program_id(1).to(tl.int64)
    head = tl.program_id(0)
    column = tl.arange(0, VALUE_DIM)
    tile = ((stream * value_heads + head) * KEY_DIM + tl.arange(0, KEY_DIM))[:, None] * VALUE_DIM + column[
        None, :
    ]
    state = tl.load(past_ptr + tile)
    length = tl.load(query_length_ptr + stream).to(tl.int32)
    weight = tl.load(norm_weight_ptr + column).to(tl.float32)
    for token in range(tokens):
        row, is_row = stream * tokens + token, token < length
        y, state = _token(
            query_ptr,
            key_ptr,
            value_ptr,
            a_ptr,
            b_ptr,
            dt_bias_ptr,
            decay_scale_ptr,
            row,
            head,
            key_heads,
            value_heads,
            VALUE_DIM,
            column,
            state,
            is_row,
            KEY_DIM,
            EPSILON,
        )
        place = (row * value_heads + head) * VALUE_DIM + column
        z = tl.where(is_row, tl.load(z_ptr + place).to(tl.float32), 0.0)
        normed = y * tl.rsqrt(tl.sum(y * y, 0) / VALUE_DIM + EPSILON) * weight
        tl.store(y_ptr + place, (normed * z * tl.sigmoid(z)).to(y_ptr.dtype.element_ty))
    tl.store(present_ptr + tile, state)


@triton.jit
def gated_norm(
    x_ptr,
    z_ptr,
    norm_weight_ptr,
    query_length_ptr,
    tokens,
    value_heads,
    y_ptr,
    VALUE_DIM: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """RMSNorm(x) * weight * SiLU(z) per head, zero in padding. Grid: runs of rows of heads, streams."""
    stream = tl.program_id(1).to(tl.int64)
    length = tl.load(query_length_ptr + stream).to(tl.int32)
    row = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))[:, None]  # of tokens * value_heads rows
    column = tl.arange(0, VALUE_DIM)[None, :]
    place = (stream * tokens * value_heads + row) * VALUE_DIM + column
    is_row = row < length * value_heads
    x = tl.load(x_ptr + place, mask=is_row, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + place, mask=is_row, other=0.0).to(tl.float32)
    normed = (
        x
        * tl.rsqrt(tl.sum(x * x, 1) / VALUE_DIM + EPSILON)[:, None]
        * tl.load(norm_weight_ptr + column).to(tl.float32)
    )
    tl.store(
        y_ptr + place,
        (normed * z * tl.sigmoid(z)).to(y_ptr.dtype.element_ty),
        mask=row < tokens * value_heads,
    )


@triton.jit
def _token(
    query_ptr,
    key_ptr,
    value_ptr,
    a_ptr,
    b_ptr,
    dt_bias_ptr,
    decay_scale_ptr,
    row,
    head,
    key_heads,
    value_heads,
    value_dim,
    column,
    state,
    is_row,
    KEY_DIM: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """y of one token and the new state; where `is_row` is false, zero and the unchanged state.

    Both sums read the old state, so neither waits for the other. No load waits for the length.
    """
    shared = (row * key_heads + head // (value_heads // key_heads)) * KEY_DIM + tl.arange(0, KEY_DIM)
    gate = row * value_heads + head
    query, key = tl.load(query_ptr + shared).to(tl.float32), tl.load(key_ptr + shared).to(tl.float32)
    value = tl.load(value_ptr + gate * value_dim + column).to(tl.float32)
    a, b = tl.load(a_ptr + gate).to(tl.float32), tl.load(b_ptr + gate).to(tl.float32)
    decay = tl.exp(
        log_decay(
            a, tl.load(dt_bias_ptr + head).to(tl.float32), tl.load(decay_scale_ptr + head).to(tl.float32)
        )
    )
    query, key, value = tl.where(is_row, query, 0.0), tl.where(is_row, key, 0.0), tl.where(is_row, value, 0.0)
    decay, rate = tl.where(is_row, decay, 1.0), tl.where(is_row, tl.sigmoid(b), 0.0)
    query *= tl.rsqrt(tl.sum(query * query, 0) + EPSILON) * (KEY_DIM**-0.5)
    key *= tl.rsqrt(tl.sum(key * key, 0) + EPSILON)
    change = (value - decay * tl.sum(state * key[:, None], 0)) * rate
    y = decay * tl.sum(state * query[:, None], 0) + tl.sum(query * key, 0) * change
    return y, state * decay + key[:, None] * change[None, :]
