"""The gates of the gated delta rule: the decay of a head's state per token, and exact sums of log decays."""

import triton
import triton.language as tl


@triton.jit
def log_decay(a, dt_bias, decay_scale):
    """The log of a token's decay of the state, decay_scale * softplus(a + dt_bias), at most 0, in float32.

    log(1 + x) of a small x is log(r) * x / (r - 1), where r is 1 + x rounded; this keeps all digits (W.
    Kahan's method). Accuracy matters because a decay near 1 acts over thousands of tokens.
    """
    x = a + dt_bias
    small = tl.exp(-tl.abs(x))
    rounded = 1.0 + small
    tail = tl.where(
        rounded == 1.0, small, tl.log(rounded) * (small / tl.where(rounded == 1.0, 1.0, rounded - 1.0))
    )
    return decay_scale * (tl.maximum(x, 0.0) + tail)


@triton.jit
def add_exactly(high, low, next_high, next_low):
    """The sum of two numbers, each stored as two floats (D. Knuth's two-sum), for `tl.associative_scan`."""
    total = high + next_high
    moved = total - high
    return total, low + next_low + ((high - (total - moved)) + (next_high - moved))
