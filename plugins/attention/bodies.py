"""The bodies of the attention kernels.

A kernel passes the inputs it has, and None for the others.
"""

import triton
import triton.language as tl

from .tiles import attend_run, encode_e4m3, entry_rows, head_rows, load_query, query_places


@triton.jit
def write_rows(
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
    capacity,
    present_key_ptr,
    present_value_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    PAGE: tl.constexpr,
):
    """Write rows (token, head) of one batch entry into the cache; rows beyond its capacity are dropped.

    `capacity` counts rows, or pages of a paged cache.
    """
    entry = tl.program_id(1)
    past = tl.load(past_length_ptr + entry).to(tl.int32)
    length = tl.load(query_length_ptr + entry).to(tl.int32)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    head = row % kv_heads
    slot = past + row // kv_heads
    if PAGE > 0:
        is_row = (row < length * kv_heads) & (slot < capacity * PAGE)
        page = tl.load(page_table_ptr + entry.to(tl.int64) * capacity + slot // PAGE, mask=is_row, other=0)
        line = (page.to(tl.int64) * kv_heads + head) * PAGE + slot % PAGE
    else:
        is_row = (row < length * kv_heads) & (slot < capacity)
        line = (entry.to(tl.int64) * kv_heads + head) * capacity + slot
    lane = tl.arange(0, DIM)[None, :]
    source = (entry.to(tl.int64) * tokens * kv_heads + row)[:, None] * DIM + lane
    target = line[:, None] * DIM + lane
    mask = is_row[:, None]
    key = tl.load(key_ptr + source, mask=mask, other=0)
    value = tl.load(value_ptr + source, mask=mask, other=0)
    if key_scale_ptr is None:
        tl.store(present_key_ptr + target, key, mask=mask)
        tl.store(present_value_ptr + target, value, mask=mask)
    else:
        place = head * scales // kv_heads
        key_scale = tl.load(key_scale_ptr + place)[:, None]
        value_scale = tl.load(value_scale_ptr + place)[:, None]
        tl.store(present_key_ptr + target, encode_e4m3(tl.div_rn(key.to(tl.float32), key_scale)), mask=mask)
        tl.store(
            present_value_ptr + target, encode_e4m3(tl.div_rn(value.to(tl.float32), value_scale)), mask=mask
        )


@triton.jit
def attend_context(
    query_ptr,
    keys_ptr,
    values_ptr,
    past_length_ptr,
    query_length_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
    gate_ptr,
    tokens,
    kv_heads,
    group,
    scales,
    capacity,
    y_ptr,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PAGE: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y of ROWS packed rows over their whole context.

    Grid: runs of rows (those with the longest context first), key heads, batch entries.
    """
    head = tl.program_id(1)
    entry = tl.program_id(2)
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    row = first_row + tl.arange(0, ROWS)
    past = tl.load(past_length_ptr + entry).to(tl.int32)
    length = tl.load(query_length_ptr + entry).to(tl.int32)
    slots = capacity
    if PAGE > 0:
        slots = capacity * PAGE
        page_table_ptr += entry.to(tl.int64) * capacity
    # No row sees cache rows from `end` on, and they may hold any bits. Every row sees the columns up to
    # `shared`, which need no mask. Eight-bit keys are always masked: the mask costs little beside the
    # decoding, and two loops would need too many registers.
    last_token = tl.minimum((first_row + ROWS - 1) // group, length - 1)
    end = tl.where(first_row // group < length, tl.minimum(past + last_token + 1, slots), 0)
    shared = 0
    if key_scale_ptr is None:
        shared = tl.minimum(past + first_row // group + 1, end) // COLUMNS * COLUMNS
    query, scale = load_query(
        query_ptr, key_scale_ptr, entry, head, kv_heads, scales, tokens, group, row, SCALE, DIM
    )
    keys_ptr = head_rows(keys_ptr, entry, head, kv_heads, capacity, DIM, PAGE)
    values_ptr = head_rows(values_ptr, entry, head, kv_heads, capacity, DIM, PAGE)
    last_visible = past + row // group
    # Finite: where a row sees nothing of a tile, inf - inf would be NaN.
    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    weighted = tl.zeros([ROWS, DIM], tl.float32)
    if key_scale_ptr is None:
        best, total, weighted = attend_run(
            query,
            scale,
            last_visible,
            0,
            shared,
            end,
            keys_ptr,
            values_ptr,
            page_table_ptr,
            kv_heads,
            best,
            total,
            weighted,
            DIM,
            COLUMNS,
            PAGE,
            False,
            PRECISION,
        )
    best, total, weighted = attend_run(
        query,
        scale,
        last_visible,
        shared,
        end,
        end,
        keys_ptr,
        values_ptr,
        page_table_ptr,
        kv_heads,
        best,
        total,
        weighted,
        DIM,
        COLUMNS,
        PAGE,
        True,
        PRECISION,
    )
    y = weighted / tl.where(total > 0, total, 1.0)[:, None]
    if value_scale_ptr is not None:
        y *= tl.load(value_scale_ptr + head * scales // kv_heads) * 256.0
    place = query_places(head, kv_heads, group, row, DIM)
    mask = (row < tokens * group)[:, None]
    if gate_ptr is not None:
        gate = tl.load(entry_rows(gate_ptr, entry, tokens, kv_heads, group, DIM) + place, mask=mask, other=0)
        y *= tl.sigmoid(gate.to(tl.float32))
    y = tl.where((row // group < length)[:, None], y, 0.0)
    tl.store(
        entry_rows(y_ptr, entry, tokens, kv_heads, group, DIM) + place,
        y.to(y_ptr.dtype.element_ty),
        mask=mask,
    )


@triton.jit
def attend_share(
    query_ptr,
    keys_ptr,
    values_ptr,
    past_length_ptr,
    query_length_ptr,
    key_scale_ptr,
    value_scale_ptr,
    page_table_ptr,
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
    PAGE: tl.constexpr,
    SCALE: tl.constexpr,
):
    """One split's share of the context for ROWS packed rows.

    partial [batch, splits, kv_heads, tokens * group, DIM] is the attention over the share alone. level has
    the same shape without DIM and is the log2 of the softmax's sum. level is -inf where the row sees nothing
    of the share; partial is not written there. The shares divide the entry's own length, not the capacity, so
    all splits have work as soon as there are as many tiles. Grid: runs of rows within splits, key heads,
    batch entries. Runs of rows are neighbours in the grid, so they find the share in the L2 cache.
    """
    head = tl.program_id(1)
    entry = tl.program_id(2)
    runs = tl.cdiv(tokens * group, ROWS)
    split = tl.program_id(0) // runs
    first_row = tl.program_id(0) % runs * ROWS
    row = first_row + tl.arange(0, ROWS)
    past = tl.load(past_length_ptr + entry).to(tl.int32)
    length = tl.load(query_length_ptr + entry).to(tl.int32)
    slots = capacity
    if PAGE > 0:
        slots = capacity * PAGE
        page_table_ptr += entry.to(tl.int64) * capacity
    last_token = tl.minimum((first_row + ROWS - 1) // group, length - 1)
    end = tl.where(first_row // group < length, tl.minimum(past + last_token + 1, slots), 0)
    tiles = tl.cdiv(end, COLUMNS)
    first = tiles * split // splits * COLUMNS
    last = tl.minimum(tiles * (split + 1) // splits * COLUMNS, end)
    query, scale = load_query(
        query_ptr, key_scale_ptr, entry, head, kv_heads, scales, tokens, group, row, SCALE, DIM
    )
    keys_ptr = head_rows(keys_ptr, entry, head, kv_heads, capacity, DIM, PAGE)
    values_ptr = head_rows(values_ptr, entry, head, kv_heads, capacity, DIM, PAGE)
    last_visible = tl.where(row // group < length, past + row // group, -1)
    best, total, weighted = attend_run(
        query,
        scale,
        last_visible,
        first,
        last,
        end,
        keys_ptr,
        values_ptr,
        page_table_ptr,
        kv_heads,
        tl.full([ROWS], -1e30, tl.float32),
        tl.zeros([ROWS], tl.float32),
        tl.zeros([ROWS, DIM], tl.float32),
        DIM,
        COLUMNS,
        PAGE,
        True,
        "ieee",
    )
    divisor = tl.where(total > 0, total, 1.0)
    share = weighted / divisor[:, None]
    if value_scale_ptr is not None:
        share *= tl.load(value_scale_ptr + head * scales // kv_heads) * 256.0
    level = tl.where(total > 0, best + tl.log2(divisor), float("-inf"))
    is_row = row < tokens * group
    line = ((entry.to(tl.int64) * splits + split) * kv_heads + head) * tokens * group + row
    tl.store(level_ptr + line, level, mask=is_row)
    tl.store(
        partial_ptr + line[:, None] * DIM + tl.arange(0, DIM)[None, :],
        share,
        mask=(is_row & (total > 0))[:, None],
    )


@triton.jit
def combine_shares(
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
    """y of one packed row from the shares of its splits.

    Grid: rows of all key heads, runs of LANES columns, batch entries.
    """
    line = tl.program_id(0)
    entry = tl.program_id(2)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    lines = kv_heads * tokens * group
    best = tl.full([1], -1e30, tl.float32)
    total = tl.zeros([1], tl.float32)
    y = tl.zeros([LANES], tl.float32)
    for start in range(0, splits, SPLITS):
        split = start + tl.arange(0, SPLITS)
        place = (entry.to(tl.int64) * splits + split) * lines + line
        level = tl.load(level_ptr + place, mask=split < splits, other=float("-inf"))
        seen = level > float("-inf")
        share = tl.load(partial_ptr + place[:, None] * DIM + lane[None, :], mask=seen[:, None], other=0.0)
        larger = tl.maximum(best, tl.max(level, 0))
        weight = tl.where(seen, tl.exp2(level - larger), 0.0)
        shrink = tl.exp2(best - larger)
        total = total * shrink + tl.sum(weight, 0)
        y = y * shrink + tl.sum(weight[:, None] * share, 0)
        best = larger
    y = y / tl.where(total > 0, total, 1.0)  # a padding row sees nothing in any split: zero
    head = line // (tokens * group)
    row = line % (tokens * group)
    target = (
        ((entry.to(tl.int64) * tokens + row // group) * kv_heads + head) * group + row % group
    ) * DIM + lane
    if gate_ptr is not None:
        y *= tl.sigmoid(tl.load(gate_ptr + target).to(tl.float32))
    tl.store(y_ptr + target, y.to(y_ptr.dtype.element_ty))
