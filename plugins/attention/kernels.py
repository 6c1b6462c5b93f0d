"""The attention kernels: one writes the new rows into the cache, one attends, and one combines splits.

A suffix names the further inputs of a kernel: `eight_bit` the scales of an FP8 cache, `paged` a page table,
`gated` the output gate. Query rows are packed: the tile of a key head holds the query heads of its group for
several tokens, row = token * group + member, so that a cache row is read once for all of them.
"""

import triton
import triton.language as tl

from .bodies import attend_context, attend_share, combine_shares, write_rows


@triton.jit
def write(
    past_key_ptr, past_value_ptr, key_ptr, value_ptr, past_length_ptr, query_length_ptr, tokens, kv_heads, capacity, present_key_ptr, present_value_ptr,
    DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write new rows into the cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr, value_ptr, past_length_ptr, query_length_ptr, None, None, None, tokens, kv_heads, 1, capacity, present_key_ptr, present_value_ptr, DIM,
        ROWS, 0,
    )  # fmt: skip


@triton.jit
def write_paged(
    past_key_ptr, past_value_ptr, key_ptr, value_ptr, past_length_ptr, query_length_ptr, page_table_ptr, tokens, kv_heads, pages, present_key_ptr,
    present_value_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Write new rows into a paged cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr, value_ptr, past_length_ptr, query_length_ptr, None, None, page_table_ptr, tokens, kv_heads, 1, pages, present_key_ptr, present_value_ptr,
        DIM, ROWS, PAGE,
    )  # fmt: skip


@triton.jit
def write_eight_bit(
    past_key_ptr, past_value_ptr, key_ptr, value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, tokens, kv_heads, scales, capacity,
    present_key_ptr, present_value_ptr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Write new rows into an eight-bit cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr, value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, None, tokens, kv_heads, scales, capacity, present_key_ptr,
        present_value_ptr, DIM, ROWS, 0,
    )  # fmt: skip


@triton.jit
def write_eight_bit_paged(
    past_key_ptr, past_value_ptr, key_ptr, value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, tokens, kv_heads,
    scales, pages, present_key_ptr, present_value_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """Write new rows into a paged eight-bit cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr, value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, tokens, kv_heads, scales, pages,
        present_key_ptr, present_value_ptr, DIM, ROWS, PAGE,
    )  # fmt: skip


@triton.jit
def attend(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, tokens, kv_heads, group, capacity, y_ptr, DIM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole cache."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, None, None, None, None, tokens, kv_heads, group, 1, capacity,
        y_ptr, DIM, ROWS, COLUMNS, 0, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_gated(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, gate_ptr, tokens, kv_heads, group, capacity, y_ptr, DIM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole cache, gated."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, None, None, None, gate_ptr, tokens, kv_heads, group, 1, capacity,
        y_ptr, DIM, ROWS, COLUMNS, 0, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_paged(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, page_table_ptr, tokens, kv_heads, group, pages, y_ptr,
    DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAGE: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole paged cache."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, None, None, page_table_ptr, None, tokens, kv_heads, group, 1,
        pages, y_ptr, DIM, ROWS, COLUMNS, PAGE, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_paged_gated(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, page_table_ptr, gate_ptr, tokens, kv_heads, group, pages, y_ptr,
    DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAGE: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole paged cache, gated."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, None, None, page_table_ptr, gate_ptr, tokens, kv_heads, group, 1,
        pages, y_ptr, DIM, ROWS, COLUMNS, PAGE, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_eight_bit(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, tokens, kv_heads, group, scales,
    capacity, y_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole eight-bit cache."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, None, None, tokens, kv_heads,
        group, scales, capacity, y_ptr, DIM, ROWS, COLUMNS, 0, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_eight_bit_gated(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, gate_ptr, tokens, kv_heads, group,
    scales, capacity, y_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole eight-bit cache, gated."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, None, gate_ptr, tokens, kv_heads,
        group, scales, capacity, y_ptr, DIM, ROWS, COLUMNS, 0, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_eight_bit_paged(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, tokens, kv_heads,
    group, scales, pages, y_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAGE: tl.constexpr, SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole paged eight-bit cache."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, None, tokens,
        kv_heads, group, scales, pages, y_ptr, DIM, ROWS, COLUMNS, PAGE, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def attend_eight_bit_paged_gated(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, gate_ptr, tokens,
    kv_heads, group, scales, pages, y_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAGE: tl.constexpr, SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Attention over a whole paged eight-bit cache, gated."""
    attend_context(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, gate_ptr, tokens,
        kv_heads, group, scales, pages, y_ptr, DIM, ROWS, COLUMNS, PAGE, SCALE, PRECISION,
    )  # fmt: skip


@triton.jit
def split(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, tokens, kv_heads, group, capacity, splits, partial_ptr, level_ptr,
    DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """Attention over a share of a cache."""
    attend_share(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, None, None, None, tokens, kv_heads, group, 1, capacity, splits,
        partial_ptr, level_ptr, DIM, ROWS, COLUMNS, 0, SCALE,
    )  # fmt: skip


@triton.jit
def split_paged(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, page_table_ptr, tokens, kv_heads, group, pages, splits, partial_ptr,
    level_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAGE: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """Attention over a share of a paged cache."""
    attend_share(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, None, None, page_table_ptr, tokens, kv_heads, group, 1, pages,
        splits, partial_ptr, level_ptr, DIM, ROWS, COLUMNS, PAGE, SCALE,
    )  # fmt: skip


@triton.jit
def split_eight_bit(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, tokens, kv_heads, group, scales,
    capacity, splits, partial_ptr, level_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    """Attention over a share of an eight-bit cache."""
    attend_share(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, None, tokens, kv_heads, group,
        scales, capacity, splits, partial_ptr, level_ptr, DIM, ROWS, COLUMNS, 0, SCALE,
    )  # fmt: skip


@triton.jit
def split_eight_bit_paged(
    query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, tokens, kv_heads,
    group, scales, pages, splits, partial_ptr, level_ptr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PAGE: tl.constexpr,
    SCALE: tl.constexpr,
):  # fmt: skip
    """Attention over a share of a paged eight-bit cache."""
    attend_share(
        query_ptr, present_key_ptr, present_value_ptr, past_length_ptr, query_length_ptr, key_scale_ptr, value_scale_ptr, page_table_ptr, tokens, kv_heads,
        group, scales, pages, splits, partial_ptr, level_ptr, DIM, ROWS, COLUMNS, PAGE, SCALE,
    )  # fmt: skip


@triton.jit
def combine(
    partial_ptr, level_ptr, tokens, kv_heads, group, splits, y_ptr, DIM: tl.constexpr, LANES: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """y from the shares of a context."""
    combine_shares(
        partial_ptr, level_ptr, None, tokens, kv_heads, group, splits, y_ptr, DIM, LANES, SPLITS,
    )  # fmt: skip


@triton.jit
def combine_gated(
    partial_ptr, level_ptr, gate_ptr, tokens, kv_heads, group, splits, y_ptr, DIM: tl.constexpr, LANES: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """y from the shares of a context, gated."""
    combine_shares(
        partial_ptr, level_ptr, gate_ptr, tokens, kv_heads, group, splits, y_ptr, DIM, LANES, SPLITS,
    )  # fmt: skip
