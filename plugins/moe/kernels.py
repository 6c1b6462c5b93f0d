"""The kernels of MoE: routing, grouping of rows by expert, two grouped matrix products, weighted sum.

An assignment is one slot of one row (row * slots + slot); a shared expert has the last slot. `order` holds
the assignments sorted by expert. The table of blocks int32 [blocks, 3] gives for each tile of rows its
expert, its first index in `order` and its number of rows (0: nothing to do).
"""

import triton
import triton.language as tl


@triton.jit
def choose_experts(
    router_ptr, first_row, rows, experts, top_k, normalize, ROWS: tl.constexpr, EXPERTS: tl.constexpr
):
    """slot int32 [ROWS, EXPERTS], the rank of an expert in the top_k of its row or -1, and its share
    float32."""
    row = first_row + tl.arange(0, ROWS)[:, None]
    expert = tl.arange(0, EXPERTS)[None, :]
    there = (row < rows) & (expert < experts)
    logit = tl.load(router_ptr + row.to(tl.int64) * experts + expert, mask=there, other=float("-inf")).to(
        tl.float32
    )
    bits = tl.where(logit == 0.0, 0.0, logit).to(tl.int32, bitcast=True)  # makes -0.0 equal to 0.0
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    IS_WIDE: tl.constexpr = router_ptr.dtype.element_ty == tl.float32
    LOWEST: tl.constexpr = -(1 << 62) if IS_WIDE else -(1 << 31)
    if IS_WIDE:
        unique = ordered.to(tl.int64) * EXPERTS + (EXPERTS - 1 - expert)  # the lower of equal experts wins
    else:
        unique = (ordered >> 13) * EXPERTS + (EXPERTS - 1 - expert)  # 16-bit numbers need 19 bits of float32
    key = tl.where(there, unique, LOWEST)
    slot = tl.full([ROWS, EXPERTS], -1, tl.int32)
    for place in range(top_k):
        taken = there & (key == tl.max(key, axis=1)[:, None])
        slot = tl.where(taken, place, slot)
        key = tl.where(taken, LOWEST, key)
    largest = tl.max(tl.where(there, logit, -3.0e38), axis=1)[:, None]
    exponential = tl.where(there, tl.exp(logit - largest), 0.0)
    kept = tl.where((slot >= 0) | (normalize == 0), exponential, 0.0)
    divisor = tl.where(row < rows, tl.sum(kept, axis=1)[:, None], 1.0)
    return slot, exponential / divisor


@triton.jit
def store_shared_shares(shared_gate_ptr, share_ptr, first_row, rows, slots, ROWS: tl.constexpr):
    """Write the share of the last slot of each row: the sigmoid of its shared gate."""
    row = first_row + tl.arange(0, ROWS)
    gate = tl.load(shared_gate_ptr + row, mask=row < rows, other=0.0).to(tl.float32)
    tl.store(share_ptr + row * slots + slots - 1, tl.sigmoid(gate), mask=row < rows)


@triton.jit
def route_decode(
    router_ptr,
    shared_gate_ptr,
    rows,
    experts,
    top_k,
    normalize,
    share_ptr,
    order_ptr,
    block_ptr,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Route at most ROWS rows in one block: shares, order, and a table with one tile per chosen expert."""
    slot, share = choose_experts(router_ptr, 0, rows, experts, top_k, normalize, ROWS, EXPERTS)
    slots = top_k + SHARED
    chosen = slot >= 0
    one = chosen.to(tl.int32)
    rank = tl.cumsum(one, axis=0) - one  # rows before this one with the same expert
    count = tl.sum(one, axis=0)  # [EXPERTS]
    first = tl.cumsum(count, axis=0) - count
    used = (count > 0).to(tl.int32)
    block = tl.cumsum(used, axis=0) - used
    assignment = tl.arange(0, ROWS)[:, None] * slots + slot
    tl.store(share_ptr + assignment, share, mask=chosen)
    tl.store(order_ptr + first[None, :] + rank, assignment, mask=chosen)
    expert = tl.arange(0, EXPERTS)
    tl.store(block_ptr + block * 3, expert, mask=count > 0)
    tl.store(block_ptr + block * 3 + 1, first, mask=count > 0)
    tl.store(block_ptr + block * 3 + 2, count, mask=count > 0)
    used_blocks = tl.sum(used, axis=0)
    if SHARED:
        store_shared_shares(shared_gate_ptr, share_ptr, 0, rows, slots, ROWS)
        row = tl.arange(0, ROWS)
        tl.store(order_ptr + rows * top_k + row, row * slots + top_k, mask=row < rows)
        tl.store(block_ptr + used_blocks * 3, experts)
        tl.store(block_ptr + used_blocks * 3 + 1, rows * top_k)
        tl.store(block_ptr + used_blocks * 3 + 2, rows)
    unused = used_blocks + SHARED + expert
    tl.store(block_ptr + unused * 3 + 2, 0, mask=unused < tl.minimum(rows * top_k, experts) + SHARED)


@triton.jit
def route_prefill(
    router_ptr,
    shared_gate_ptr,
    rows,
    experts,
    top_k,
    normalize,
    share_ptr,
    chosen_ptr,
    rank_ptr,
    count_ptr,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Route ROWS rows per block.

    Writes shares, chosen experts, the rank of each row among the block's rows with the same expert, and the
    block's number of rows per expert.
    """
    first_row = tl.program_id(0) * ROWS
    slot, share = choose_experts(router_ptr, first_row, rows, experts, top_k, normalize, ROWS, EXPERTS)
    slots = top_k + SHARED
    row = first_row + tl.arange(0, ROWS)[:, None]
    expert = tl.arange(0, EXPERTS)
    chosen = slot >= 0
    one = chosen.to(tl.int32)
    tl.store(share_ptr + row * slots + slot, share, mask=chosen)
    tl.store(chosen_ptr + row * top_k + slot, tl.broadcast_to(expert[None, :], [ROWS, EXPERTS]), mask=chosen)
    tl.store(rank_ptr + row * top_k + slot, tl.cumsum(one, axis=0) - one, mask=chosen)
    tl.store(count_ptr + tl.program_id(0) * experts + expert, tl.sum(one, axis=0), mask=expert < experts)
    if SHARED:
        store_shared_shares(shared_gate_ptr, share_ptr, first_row, rows, slots, ROWS)


@triton.jit
def sum_counts(
    count_ptr, row_blocks, experts, before_ptr, total_ptr, BLOCKS: tl.constexpr, EXPERTS: tl.constexpr
):
    """before [row_blocks, experts]: rows of an expert in earlier blocks; total [experts].

    Grid: runs of EXPERTS experts.
    """
    expert = tl.program_id(0) * EXPERTS + tl.arange(0, EXPERTS)
    total = tl.zeros([EXPERTS], tl.int32)
    for first in range(0, row_blocks, BLOCKS):
        block = first + tl.arange(0, BLOCKS)[:, None]
        there = (block < row_blocks) & (expert < experts)[None, :]
        count = tl.load(count_ptr + block * experts + expert[None, :], mask=there, other=0)
        tl.store(
            before_ptr + block * experts + expert[None, :],
            total[None, :] + tl.cumsum(count, axis=0) - count,
            mask=there,
        )
        total += tl.sum(count, axis=0)
    tl.store(total_ptr + expert, total, mask=expert < experts)


@triton.jit
def fill_blocks(
    total_ptr,
    chosen_ptr,
    rows,
    experts,
    top_k,
    blocks,
    start_ptr,
    block_ptr,
    EXPERTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    SHARED: tl.constexpr,
):
    """start [experts], each expert's first index in `order`, and the table of at most `blocks` blocks."""
    expert = tl.arange(0, EXPERTS)
    total = tl.load(total_ptr + expert, mask=expert < experts, other=0)
    start = tl.cumsum(total, axis=0) - total
    tl.store(start_ptr + expert, start, mask=expert < experts)
    tiles = (total + BLOCK_M - 1) // BLOCK_M
    first_tile = tl.cumsum(tiles, axis=0) - tiles
    for tile in range(tl.max(tiles, axis=0)):
        place = block_ptr + (first_tile + tile) * 3
        tl.store(place, expert, mask=tile < tiles)
        tl.store(place + 1, start + tile * BLOCK_M, mask=tile < tiles)
        tl.store(place + 2, tl.minimum(total - tile * BLOCK_M, BLOCK_M), mask=tile < tiles)
    used = tl.sum(tiles, axis=0)
    if SHARED:
        shared_tiles = (rows + BLOCK_M - 1) // BLOCK_M
        for first in range(0, shared_tiles, EXPERTS):
            shared_tile = first + expert
            shared_place = block_ptr + (used + shared_tile) * 3
            tl.store(shared_place, tl.zeros_like(expert) + experts, mask=shared_tile < shared_tiles)
            tl.store(shared_place + 1, rows * top_k + shared_tile * BLOCK_M, mask=shared_tile < shared_tiles)
            tl.store(
                shared_place + 2,
                tl.minimum(rows - shared_tile * BLOCK_M, BLOCK_M),
                mask=shared_tile < shared_tiles,
            )
        used += shared_tiles
    for first in range(used, blocks, EXPERTS):
        tl.store(block_ptr + (first + expert) * 3 + 2, 0, mask=first + expert < blocks)


@triton.jit
def sort_assignments(
    chosen_ptr,
    rank_ptr,
    before_ptr,
    start_ptr,
    rows,
    experts,
    top_k,
    order_ptr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SHARED: tl.constexpr,
):
    """order: assignments sorted by expert, then by block of ROWS rows, then by row."""
    slots = top_k + SHARED
    assignment = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = assignment // slots
    slot = assignment % slots
    routed = (row < rows) & (slot < top_k)
    expert = tl.load(chosen_ptr + row * top_k + slot, mask=routed, other=0)
    place = tl.load(rank_ptr + row * top_k + slot, mask=routed, other=0) + tl.load(
        start_ptr + expert, mask=routed, other=0
    )
    place += tl.load(before_ptr + (row // ROWS) * experts + expert, mask=routed, other=0)
    place = tl.where(slot < top_k, place, rows * top_k + row)
    tl.store(order_ptr + place, assignment, mask=row < rows)


@triton.jit
def multiply_rows(
    a_ptrs,
    is_row,
    weight_ptrs,
    is_column,
    depth,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """a [BLOCK_M, depth] times the transpose of weight [BLOCK_N, depth], in float32.

    The pointers are those of the first tiles [BLOCK_M, BLOCK_K] and [BLOCK_K, BLOCK_N].
    """
    k = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, depth, BLOCK_K):
        inside = k < depth - first
        a = tl.load(a_ptrs, mask=is_row[:, None] & inside[None, :], other=0.0)
        weight = tl.load(weight_ptrs, mask=is_column[None, :] & inside[:, None], other=0.0)
        total = tl.dot(a, weight, total, input_precision="ieee")  # affects float32 only
        a_ptrs += BLOCK_K
        weight_ptrs += BLOCK_K
    return total


@triton.jit
def swiglu(gate_up, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """SiLU(gate) * up, [BLOCK_M, BLOCK_N // 2], from interleaved columns of gate and up."""
    gate, up = tl.split(tl.reshape(gate_up, [BLOCK_M, BLOCK_N // 2, 2]))
    return gate * tl.sigmoid(gate) * up


@triton.jit
def gate_up(
    x_ptr,
    weight_ptr,
    order_ptr,
    block_ptr,
    hidden,
    inter,
    slots,
    activated_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """activated [assignments in order, inter].

    Grid: runs of BLOCK_N rows of gate_up, blocks; neighbours in the grid share x rows and the expert.
    """
    table = block_ptr + tl.program_id(1) * 3
    count = tl.load(table + 2)
    if count == 0:
        return
    expert = tl.load(table).to(tl.int64)
    place = tl.arange(0, BLOCK_M)
    first = tl.load(table + 1)
    row = tl.load(order_ptr + first + place, mask=place < count, other=0) // slots
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    x_ptrs = x_ptr + row.to(tl.int64)[:, None] * hidden + k[None, :]
    weight_ptrs = weight_ptr + (expert * 2 * inter + column[None, :]) * hidden + k[:, None]
    total = multiply_rows(
        x_ptrs, place < count, weight_ptrs, column < 2 * inter, hidden, BLOCK_M, BLOCK_N, BLOCK_K
    )
    activated = swiglu(total, BLOCK_M, BLOCK_N)
    out = tl.program_id(0) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    out_ptrs = activated_ptr + (first + place).to(tl.int64)[:, None] * inter + out[None, :]
    tl.store(
        out_ptrs,
        activated.to(activated_ptr.dtype.element_ty),
        mask=(place < count)[:, None] & (out < inter)[None, :],
    )


@triton.jit
def down(
    activated_ptr,
    weight_ptr,
    order_ptr,
    block_ptr,
    inter,
    hidden,
    partial_ptr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """partial [assignments, hidden], in row order. Grid: runs of BLOCK_N columns, blocks."""
    table = block_ptr + tl.program_id(1) * 3
    count = tl.load(table + 2)
    if count == 0:
        return
    expert = tl.load(table).to(tl.int64)
    place = tl.arange(0, BLOCK_M)
    first = tl.load(table + 1)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    activated_ptrs = activated_ptr + (first + place).to(tl.int64)[:, None] * inter + k[None, :]
    weight_ptrs = weight_ptr + (expert * hidden + column[None, :]) * inter + k[:, None]
    total = multiply_rows(
        activated_ptrs, place < count, weight_ptrs, column < hidden, inter, BLOCK_M, BLOCK_N, BLOCK_K
    )
    assignment = tl.load(order_ptr + first + place, mask=place < count, other=0)
    out_ptrs = partial_ptr + assignment.to(tl.int64)[:, None] * hidden + column[None, :]
    tl.store(
        out_ptrs,
        total.to(partial_ptr.dtype.element_ty),
        mask=(place < count)[:, None] & (column < hidden)[None, :],
    )


@triton.jit
def combine(partial_ptr, share_ptr, hidden, slots, y_ptr, SLOTS: tl.constexpr, BLOCK: tl.constexpr):
    """y = sum over a row's slots of share * partial. Grid: rows, runs of columns.

    SLOTS slots are loaded at once, so that no load waits for the one before.
    """
    row = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(0, slots, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        assignment = row * slots + slot
        share = tl.load(share_ptr + assignment, mask=slot < slots, other=0.0)
        there = (slot < slots)[:, None] & (column < hidden)[None, :]
        partial = tl.load(
            partial_ptr + assignment.to(tl.int64)[:, None] * hidden + column[None, :], mask=there, other=0.0
        )
        total += tl.sum(share[:, None] * partial.to(tl.float32), axis=0)
    tl.store(
        y_ptr + row.to(tl.int64) * hidden + column, total.to(y_ptr.dtype.element_ty), mask=column < hidden
    )
