"""The kernels that write the new rows into the cache, one for each form of cache."""

import triton
import triton.language as tl

from .bodies import write_rows


@triton.jit
def write(
    past_key_ptr,
    past_value_ptr,
    key_ptr,
    value_ptr,
    past_length_ptr,
    query_length_ptr,
    tokens,
    kv_heads,
    capacity,
    present_key_ptr,
    present_value_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write new rows into the cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr,
        value_ptr,
        past_length_ptr,
        query_length_ptr,
        None,
        None,
        None,
        tokens,
        kv_heads,
        1,
        capacity,
        present_key_ptr,
        present_value_ptr,
        DIM,
        ROWS,
        0,
    )


@triton.jit
def write_paged(
    past_key_ptr,
    past_value_ptr,
    key_ptr,
    value_ptr,
    past_length_ptr,
    query_length_ptr,
    page_table_ptr,
    tokens,
    kv_heads,
    pages,
    present_key_ptr,
    present_value_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Write new rows into a paged cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr,
        value_ptr,
        past_length_ptr,
        query_length_ptr,
        None,
        None,
        page_table_ptr,
        tokens,
        kv_heads,
        1,
        pages,
        present_key_ptr,
        present_value_ptr,
        DIM,
        ROWS,
        PAGE,
    )


@triton.jit
def write_eight_bit(
    past_key_ptr,
    past_value_ptr,
    key_ptr,
    value_ptr,
    past_length_ptr,
    query_length_ptr,
    key_scale_ptr,
    value_scale_ptr,
    tokens,
    kv_heads,
    scales,
    capacity,
    present_key_ptr,
    present_value_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Write new rows into an eight-bit cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr,
        value_ptr,
        past_length_ptr,
        query_length_ptr,
        key_scale_ptr,
        value_scale_ptr,
        None,
        tokens,
        kv_heads,
        scales,
        capacity,
        present_key_ptr,
        present_value_ptr,
        DIM,
        ROWS,
        0,
    )


@triton.jit
def write_eight_bit_paged(
    past_key_ptr,
    past_value_ptr,
    key_ptr,
    value_ptr,
    past_length_ptr,
    query_length_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    tokens,
    kv_heads,
    scales,
    pages,
    present_key_ptr,
    present_value_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Write new rows into a paged eight-bit cache; past_* and present_* are the same memory."""
    write_rows(
        key_ptr,
        value_ptr,
        past_length_ptr,
        query_length_ptr,
        key_scale_ptr,
        value_scale_ptr,
        page_table_ptr,
        tokens,
        kv_heads,
        scales,
        pages,
        present_key_ptr,
        present_value_ptr,
        DIM,
        ROWS,
        PAGE,
    )
