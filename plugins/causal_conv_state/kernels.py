"""CausalConvState on a GPU: one launch, with a block per stream, run of tokens and run of channels."""

import triton
import triton.language as tl


@triton.jit
def causal_conv(
    x_ptr,
    weight_ptr,
    past_ptr,
    query_length_ptr,
    tokens,
    channels,
    y_ptr,
    present_ptr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """y = SiLU of the convolution of 4 taps over past|x, and the present state.

    A block computes its tokens in order, four per step, with the three preceding rows in registers. So it
    reads every row once, plus the three rows before its first token. The block of the first tokens also
    writes the state, from x and past alone. Grid: runs of tokens, runs of channels, streams. `present` must
    not share memory with `past` where there is more than one run of tokens.
    """
    stream = tl.program_id(2).to(tl.int64)
    length = tl.load(query_length_ptr + stream).to(tl.int32)
    channel = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    in_channels = channel < channels
    taps = tl.load(
        weight_ptr + channel[:, None] * 4 + tl.arange(0, 4)[None, :], mask=in_channels[:, None], other=0.0
    ).to(tl.float32)
    even, odd = tl.split(tl.reshape(taps, [BLOCK_CHANNELS, 2, 2]))
    weight_0, weight_2 = tl.split(even)
    weight_1, weight_3 = tl.split(odd)
    x_ptr += stream * tokens * channels
    y_ptr += stream * tokens * channels
    past_ptr += stream * 3 * channels
    first = tl.program_id(0) * BLOCK_TOKENS
    row_0 = _row(x_ptr, past_ptr, first - 3, length, channel, channels, in_channels)
    row_1 = _row(x_ptr, past_ptr, first - 2, length, channel, channels, in_channels)
    row_2 = _row(x_ptr, past_ptr, first - 1, length, channel, channels, in_channels)
    for start in range(0, BLOCK_TOKENS, 4):
        token = first + start
        # Issue four loads before waiting for the first.
        row_3 = _load(x_ptr, token, length, channel, channels, in_channels)
        row_4 = _load(x_ptr, token + 1, length, channel, channels, in_channels)
        row_5 = _load(x_ptr, token + 2, length, channel, channels, in_channels)
        row_6 = _load(x_ptr, token + 3, length, channel, channels, in_channels)
        total_0 = weight_0 * row_0 + weight_1 * row_1 + weight_2 * row_2 + weight_3 * row_3
        total_1 = weight_0 * row_1 + weight_1 * row_2 + weight_2 * row_3 + weight_3 * row_4
        total_2 = weight_0 * row_2 + weight_1 * row_3 + weight_2 * row_4 + weight_3 * row_5
        total_3 = weight_0 * row_3 + weight_1 * row_4 + weight_2 * row_5 + weight_3 * row_6
        _store_silu(y_ptr, total_0, token, length, tokens, channel, channels, in_channels)
        _store_silu(y_ptr, total_1, token + 1, length, tokens, channel, channels, in_channels)
        _store_silu(y_ptr, total_2, token + 2, length, tokens, channel, channels, in_channels)
        _store_silu(y_ptr, total_3, token + 3, length, tokens, channel, channels, in_channels)
        row_0, row_1, row_2 = row_4, row_5, row_6
    if tl.program_id(0) == 0:
        for slot in tl.static_range(3):
            last = _row(x_ptr, past_ptr, length - 3 + slot, length, channel, channels, in_channels)
            tl.store(
                present_ptr + (stream * 3 + slot) * channels + channel,
                last.to(present_ptr.dtype.element_ty),
                mask=in_channels,
            )


@triton.jit
def _row(x_ptr, past_ptr, place, length, channel, channels, in_channels):
    """Row `place` of x in float32; a negative `place` is a row of past; rows from `length` on are zeros."""
    row = _load(x_ptr, place, length, channel, channels, in_channels & (place >= 0))
    return row + tl.load(
        past_ptr + (place + 3) * channels + channel, mask=in_channels & (place < 0), other=0.0
    ).to(tl.float32)


@triton.jit
def _load(x_ptr, token, length, channel, channels, mask):
    return tl.load(
        x_ptr + token.to(tl.int64) * channels + channel, mask=mask & (token < length), other=0.0
    ).to(tl.float32)


@triton.jit
def _store_silu(y_ptr, total, token, length, tokens, channel, channels, in_channels):
    y = tl.where(token < length, total * tl.sigmoid(total), 0.0).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + token.to(tl.int64) * channels + channel, y, mask=in_channels & (token < tokens))
