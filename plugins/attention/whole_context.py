"""The kernels whose blocks attend over the whole context of their rows, one for each set of inputs."""

import triton
import triton.language as tl

from .bodies import attend_context


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
