"""The draw of one id by weight."""

import triton
import triton.language as tl

NONE = tl.constexpr(2147483647)
"""Stands for no id."""


@triton.jit
def draw(weights, ids, is_kept, start, target):
    """The first kept id at which `start` plus the cumulative weight exceeds `target`, else the last."""
    cumulative = start + tl.cumsum(weights, axis=0)
    first = tl.min(tl.where(is_kept & (cumulative > target), ids, NONE), axis=0)
    last = tl.max(tl.where(is_kept, ids, -1), axis=0)
    return tl.minimum(first, last)
