"""The gated delta rule over chunks of 64 tokens: first what is independent of the state, then the state.

Within a chunk let g_t be the sum of the log decays up to token t, S the state before it, and u_t the write of
token t. The unrolled recurrence is
    u_t = beta_t (v_t - e^(g_t) S^T k_t - sum over j < t of e^(g_t - g_j) (k_t . k_j) u_j)
    y_t = e^(g_t) S^T q_t + sum over j <= t of e^(g_t - g_j) (q_t . k_j) u_j
and S becomes e^(g_64) S + sum of e^(g_64 - g_j) k_j u_j^T. With A the matrix of the first sum, times beta,
`write` = (I + A)^-1 diag(beta) gives all u at once (see `inverse`); `attend` is the matrix of the second sum.
Source: Yang et al., Gated Delta Networks, arXiv 2412.06464, section 3.3. The paper stores the inverse times
keys and values. Here the inverse is stored alone, which is half the size, and the subtraction happens before
rounding. Keys and queries are not normalised in memory: their norms scale rows, so the tensor cores multiply
them as they are.
"""

import triton
import triton.language as tl

from .gates import add_exactly, log_decay


@triton.jit
def compare_queries(
    query_ptr,
    key_ptr,
    a_ptr,
    b_ptr,
    dt_bias_ptr,
    decay_scale_ptr,
    query_length_ptr,
    tokens,
    key_heads,
    value_heads,
    attend_ptr,
    factor_ptr,
    KEY_DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    EPSILON: tl.constexpr,
):
    """Write `attend` [batch, value_heads, chunks, 64, 64] and float32 `factor` [.., 8, 64].

    The rows of `factor`, per token: 0 e^g / |k|, 1 e^g / |q| / sqrt(key_dim), 2 e^(g_64 - g) / |k|, 3
    e^(g_64), 4 and 5 g as the sum of two floats, 6 1 / |k|, 7 beta. Chunks of padding alone are not written.
    Grid: chunks, value heads, streams.
    """
    stream = tl.program_id(2).to(tl.int64)
    chunk, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(query_length_ptr + stream).to(tl.int32) - chunk * CHUNK
    if length <= 0:
        return
    first = stream * tokens + chunk * CHUNK
    place, part = tl.arange(0, CHUNK), tl.arange(0, 64)
    is_row = place < length
    rows = ((first + place) * key_heads + head // (value_heads // key_heads))[:, None] * KEY_DIM + part[
        None, :
    ]
    products = tl.zeros([CHUNK, CHUNK], tl.float32)
    key_squares, query_squares = tl.zeros([CHUNK], tl.float32), tl.zeros([CHUNK], tl.float32)
    for start in tl.static_range(0, KEY_DIM, 64):
        key = tl.load(key_ptr + rows + start, mask=is_row[:, None], other=0.0)
        query = tl.load(query_ptr + rows + start, mask=is_row[:, None], other=0.0)
        key_squares += tl.sum(key.to(tl.float32) * key.to(tl.float32), 1)
        query_squares += tl.sum(query.to(tl.float32) * query.to(tl.float32), 1)
        products = tl.dot(query, tl.trans(key), products)
    key_norm = tl.rsqrt(key_squares + EPSILON)
    query_norm = tl.rsqrt(query_squares + EPSILON) * (KEY_DIM**-0.5)
    gates = (first + place) * value_heads + head
    a = tl.load(a_ptr + gates, mask=is_row, other=0.0).to(tl.float32)
    b = tl.load(b_ptr + gates, mask=is_row, other=0.0).to(tl.float32)
    decay = log_decay(
        a, tl.load(dt_bias_ptr + head).to(tl.float32), tl.load(decay_scale_ptr + head).to(tl.float32)
    )
    # e^-10000 is already zero, and a finite bound avoids inf - inf = NaN.
    decay = tl.where(is_row, tl.maximum(decay, -10000.0), 0.0)
    # Two floats: after a token that forgets all, one float would have no digits left for the tokens' own
    # decays.
    high, low = tl.associative_scan((decay, tl.zeros([CHUNK], tl.float32)), 0, add_exactly)
    is_last = place == CHUNK - 1
    last_high, last_low = tl.sum(tl.where(is_last, high, 0.0), 0), tl.sum(tl.where(is_last, low, 0.0), 0)
    matrix = (stream * value_heads + head) * tl.cdiv(tokens, CHUNK) + chunk
    factor = factor_ptr + matrix * (8 * CHUNK) + place
    tl.store(factor, tl.exp(high + low) * key_norm)
    tl.store(factor + CHUNK, tl.exp(high + low) * query_norm)
    tl.store(factor + 2 * CHUNK, tl.exp((last_high - high) + (last_low - low)) * key_norm)
    tl.store(factor + 3 * CHUNK, tl.zeros([CHUNK], tl.float32) + tl.exp(last_high + last_low))
    tl.store(factor + 4 * CHUNK, high)
    tl.store(factor + 5 * CHUNK, low)
    tl.store(factor + 6 * CHUNK, key_norm)
    tl.store(factor + 7 * CHUNK, tl.where(is_row, tl.sigmoid(b), 0.0))
    # above 0 only above the diagonal
    between = (high[:, None] - high[None, :]) + (low[:, None] - low[None, :])
    is_seen = place[:, None] >= place[None, :]
    attend = products * tl.exp(tl.minimum(between, 0.0)) * query_norm[:, None] * key_norm[None, :]
    square = attend_ptr + matrix * (CHUNK * CHUNK) + place[:, None] * CHUNK + place[None, :]
    tl.store(square, tl.where(is_seen, attend, 0.0).to(attend_ptr.dtype.element_ty))


@triton.jit
def carry_state(
    query_ptr,
    key_ptr,
    value_ptr,
    past_ptr,
    query_length_ptr,
    write_ptr,
    attend_ptr,
    factor_ptr,
    tokens,
    key_heads,
    value_heads,
    value_dim,
    y_ptr,
    present_ptr,
    KEY_DIM: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK_VALUES: tl.constexpr,
    RELOAD: tl.constexpr,
):
    """y and the present state, chunk after chunk. A block keeps its columns of one head's state in registers.

    In float16 the state's update scales the keys (to at most 1): a write divided by the norm of a small key
    could overflow. RELOAD loads the transposed keys separately, for tensor cores that cannot read one tile in
    both directions. Grid: runs of value columns, value heads, streams.
    """
    stream = tl.program_id(2).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(query_length_ptr + stream).to(tl.int32)
    key_head = head // (value_heads // key_heads)
    place, dim = tl.arange(0, CHUNK), tl.arange(0, KEY_DIM)
    column = tl.program_id(0) * BLOCK_VALUES + tl.arange(0, BLOCK_VALUES)
    operand: tl.constexpr = key_ptr.dtype.element_ty
    tile = ((stream * value_heads + head) * KEY_DIM + dim)[:, None] * value_dim + column[None, :]
    state = tl.load(past_ptr + tile)  # [key_dim, values] float32
    chunks = tl.cdiv(tokens, CHUNK)
    used = tl.cdiv(length, CHUNK)
    square = place[:, None] * CHUNK + place[None, :]
    for chunk in range(used):
        token = chunk * CHUNK + place
        is_row = (token < length)[:, None]
        matrix = (stream * value_heads + head) * chunks + chunk
        rows = ((stream * tokens + token) * key_heads + key_head)[:, None] * KEY_DIM + dim[None, :]
        values = ((stream * tokens + token) * value_heads + head)[:, None] * value_dim + column[None, :]
        # A load directly before its use lets the compiler read the tile from shared memory, which the loop
        # prefetches.
        factor = factor_ptr + matrix * (8 * CHUNK)
        decay = tl.load(factor + 3 * CHUNK)
        before = state.to(operand)
        key = tl.load(key_ptr + rows, mask=is_row, other=0.0)
        known = tl.dot(key, before) * tl.load(factor + place)[:, None]
        query = tl.load(query_ptr + rows, mask=is_row, other=0.0)
        y = tl.dot(query, before) * tl.load(factor + CHUNK + place)[:, None]
        value = tl.load(value_ptr + values, mask=is_row, other=0.0)
        write = tl.load(write_ptr + matrix * (CHUNK * CHUNK) + square)
        written = tl.dot(write, (value.to(tl.float32) - known).to(operand))
        if RELOAD:
            turned_rows = ((stream * tokens + token) * key_heads + key_head)[None, :] * KEY_DIM + dim[:, None]
            turned = tl.load(key_ptr + turned_rows, mask=(token < length)[None, :], other=0.0)
        else:
            turned = tl.trans(key)
        keep_scale = tl.load(factor + 2 * CHUNK + place)
        if operand == tl.float16:
            scaled = (turned.to(tl.float32) * keep_scale[None, :]).to(operand)
            state = tl.dot(scaled, written.to(operand), state * decay)
        else:
            state = tl.dot(turned, (written * keep_scale[:, None]).to(operand), state * decay)
        attend = tl.load(attend_ptr + matrix * (CHUNK * CHUNK) + square)
        y = tl.dot(attend, written.to(operand), y)
        tl.store(y_ptr + values, y.to(y_ptr.dtype.element_ty), mask=(token < tokens)[:, None])
    tl.store(present_ptr + tile, state)
    for chunk in range(used, chunks):
        token = chunk * CHUNK + place
        values = ((stream * tokens + token) * value_heads + head)[:, None] * value_dim + column[None, :]
        tl.store(
            y_ptr + values,
            tl.zeros([CHUNK, BLOCK_VALUES], y_ptr.dtype.element_ty),
            mask=(token < tokens)[:, None],
        )
