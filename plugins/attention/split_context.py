"""The kernels whose blocks attend over a share of the context, and those that combine the shares."""

import triton
import triton.language as tl

from .bodies import attend_share, combine_shares


@triton.jit
def split(
    query_ptr,
    present_key_ptr,
    present_value_ptr,
    past_length_ptr,
    query_length_ptr,
    tokens,
    kv_heads,
    group,
    capacity,
    splits,
    partial_ptr,
    level_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
):
    """Attention over a share of a cache."""
    attend_share(
        query_ptr,
        present_key_ptr,
        present_value_ptr,
        past_length_ptr,
        query_length_ptr,
        None,
        None,
        None,
        tokens,
        kv_heads,
        group,
        1,
        capacity,
        splits,
        partial_ptr,
        level_ptr,
        DIM,
        ROWS,
        COLUMNS,
        0,
        SCALE,
    )


@triton.jit
def split_paged(
    query_ptr,
    present_key_ptr,
    present_value_ptr,
    past_length_ptr,
    query_length_ptr,
    page_table_ptr,
    tokens,
    kv_heads,
    group,
    pages,
    splits,
    partial_ptr,
    level_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    SCALE: tl.constexpr,
):
    """Attention over a share of a paged cache."""
    attend_share(
        query_ptr,
        present_key_ptr,
        present_value_ptr,
        past_length_ptr,
        query_length_ptr,
        None,
        None,
        page_table_ptr,
        tokens,
        kv_heads,
        group,
        1,
        pages,
        splits,
        partial_ptr,
        level_ptr,
        DIM,
        ROWS,
        COLUMNS,
        PAGE,
        SCALE,
    )


@triton.jit
def split_eight_bit(
    query_ptr,
    present_key_ptr,
    present_value_ptr,
    past_length_ptr,
    query_length_ptr,
    key_scale_ptr,
    value_scale_ptr,
    tokens,
    kv_heads,
    group,
    scales,
    capacity,
    splits,
    partial_ptr,
    level_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
):
    """Attention over a share of an eight-bit cache."""
    attend_share(
        query_ptr,
        present_key_ptr,
        present_value_ptr,
        past_length_ptr,
        query_length_ptr,
        key_scale_ptr,
        value_scale_ptr,
        None,
        tokens,
        kv_heads,
        group,
        scales,
        capacity,
        splits,
        partial_ptr,
        level_ptr,
        DIM,
        ROWS,
        COLUMNS,
        0,
        SCALE,
    )


@triton.jit
def split_eight_bit_paged(
    query_ptr,
    present_key_ptr,
    present_value_ptr,
    past_length_ptr,
    query_length_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    tokens,
    kv_heads,
    group,
    scales,
    pages,
    splits,
    partial_ptr,
    level_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    SCALE: tl.constexpr,
):
    """Attention over a share of a paged eight-bit cache."""
    attend_share(
        query_ptr,
        present_key_ptr,
        present_value_ptr,
        past_length_ptr,
        query_length_ptr,
        key_scale_ptr,
        value_scale_ptr,
        page_table_ptr,
        tokens,
        kv_heads,
        group,
        scales,
        pages,
        splits,
        partial_ptr,
        level_ptr,
        DIM,
        ROWS,
        COLUMNS,
        PAGE,
        SCALE,
    )


@triton.jit
def combine(
    partial_ptr,
    level_ptr,
    tokens,
    kv_heads,
    group,
    splits,
    y_ptr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """y from the shares of a context."""
    combine_shares(
        partial_ptr,
        level_ptr,
        None,
        tokens,
        kv_heads,
        group,
        splits,
        y_ptr,
        DIM,
        LANES,
        SPLITS,
    )


@triton.jit
def combine_gated(
    partial_ptr,
    level_ptr,
    gate_ptr,
    tokens,
    kv_heads,
    group,
    splits,
    y_ptr,
    DIM: tl.constexpr,
    LANES: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """y from the shares of a context, gated."""
    combine_shares(
        partial_ptr,
        level_ptr,
        gate_ptr,
        tokens,
        kv_heads,
        group,
        splits,
        y_ptr,
        DIM,
        LANES,
        SPLITS,
    )
