"""CausalConvState on a GPU: one launch, a block per stream, run of tokens and run of channels."""

import triton
import triton.language as tl


@triton.jit
def causal_conv(
    x_ptr, weight_ptr, past_ptr, query_length_ptr, tokens, channels, y_ptr, present_ptr,
    KERNEL: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr,
):  # fmt: skip
    """y = SiLU of the convolution over past|x; the block of the first tokens also writes the state, from x and past alone.

    Grid: runs of channels, runs of tokens, streams. `present` must be other memory than `past` where there is more than one run of tokens.
    """
    stream = tl.program_id(2).to(tl.int64)
    length = tl.load(query_length_ptr + stream).to(tl.int32)
    channel = tl.program_id(0) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)[None, :]
    token = tl.program_id(1) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)[:, None]
    in_channels = channel < channels
    x_ptr += stream * tokens * channels
    past_ptr += stream * (KERNEL - 1) * channels
    total = tl.zeros([BLOCK_TOKENS, BLOCK_CHANNELS], tl.float32)
    for tap in tl.static_range(KERNEL):
        weight = tl.load(weight_ptr + channel * KERNEL + tap, mask=in_channels, other=0.0).to(tl.float32)
        place = token + tap - (KERNEL - 1)  # row of x, or behind it of past
        row = tl.load(x_ptr + place.to(tl.int64) * channels + channel, mask=in_channels & (place >= 0) & (place < length), other=0.0).to(tl.float32)
        row += tl.load(past_ptr + (place + KERNEL - 1) * channels + channel, mask=in_channels & (place < 0), other=0.0).to(tl.float32)
        total += weight * row
    y = tl.where(token < length, total * tl.sigmoid(total), 0.0)
    tl.store(y_ptr + (stream * tokens + token) * channels + channel, y.to(y_ptr.dtype.element_ty), mask=in_channels & (token < tokens))
    if tl.program_id(1) == 0:
        for slot in tl.static_range(KERNEL - 1):
            behind = length - (KERNEL - 1) + slot
            last = tl.load(x_ptr + behind.to(tl.int64) * channels + channel, mask=in_channels & (behind >= 0), other=0.0).to(tl.float32)
            last += tl.load(past_ptr + (behind + KERNEL - 1) * channels + channel, mask=in_channels & (behind < 0), other=0.0).to(tl.float32)
            kept = last.to(present_ptr.dtype.element_ty)
            tl.store(present_ptr + (stream * (KERNEL - 1) + slot) * channels + channel, kept, mask=in_channels)
