"""How much of its state a head forgets and how strongly it writes, token by token."""

import triton
import triton.language as tl


@triton.jit
def log_decay(a, dt_bias, decay_scale):
    """decay_scale * softplus(a + dt_bias), at most 0: the log of what a token leaves of the state. float32.

    log(1 + x) for small x keeps its digits by dividing by what 1 + x rounded to (W. Kahan): a decay near 1 acts over thousands of tokens.
    """
    x = a + dt_bias
    small = tl.exp(-tl.abs(x))
    rounded = 1.0 + small
    tail = tl.where(rounded == 1.0, small, tl.log(rounded) * (small / tl.where(rounded == 1.0, 1.0, rounded - 1.0)))
    return decay_scale * (tl.maximum(x, 0.0) + tail)


@triton.jit
def add_exactly(high, low, next_high, next_low):
    """Sum of two numbers of two floats each (D. Knuth's two-sum): for `tl.associative_scan`."""
    total = high + next_high
    moved = total - high
    return total, low + next_low + ((high - (total - moved)) + (next_high - moved))
