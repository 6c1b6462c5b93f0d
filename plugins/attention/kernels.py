"""The attention kernels: one writes the new rows into the cache, one attends, and one combines splits.

A suffix names the further inputs of a kernel: `eight_bit` the scales of an FP8 cache, `paged` a page table,
`gated` the output gate. Query rows are packed: the tile of a key head holds the query heads of its group for
several tokens, row = token * group + member, so that a cache row is read once for all of them.
"""

from .cache_writes import write, write_eight_bit, write_eight_bit_paged, write_paged
from .split_context import combine, combine_gated, split, split_eight_bit, split_eight_bit_paged, split_paged
from .whole_context import (
    attend,
    attend_eight_bit,
    attend_eight_bit_gated,
    attend_eight_bit_paged,
    attend_eight_bit_paged_gated,
    attend_gated,
    attend_paged,
    attend_paged_gated,
)

__all__ = [
    "attend",
    "attend_eight_bit",
    "attend_eight_bit_gated",
    "attend_eight_bit_paged",
    "attend_eight_bit_paged_gated",
    "attend_gated",
    "attend_paged",
    "attend_paged_gated",
    "combine",
    "combine_gated",
    "split",
    "split_eight_bit",
    "split_eight_bit_paged",
    "split_paged",
    "write",
    "write_eight_bit",
    "write_eight_bit_paged",
    "write_paged",
]
