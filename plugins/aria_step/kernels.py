"""AriaStep on a GPU: one launch, with a block per stream and run of the hidden axis.

Every block computes the decisions itself, from a few integers.
"""

import triton
import triton.language as tl


@triton.jit
def aria_step(
    need_ptr,
    text_ids_ptr,
    text_length_ptr,
    text_complete_ptr,
    codes_ptr,
    counters_ptr,
    text_embedding_ptr,
    code_embedding_ptr,
    table,
    slots,
    groups,
    codebook,
    hidden,
    end_id,
    pad_id,
    summed,
    end_anywhere,
    row_ptr,
    query_length_ptr,
    sample_ptr,
    may_end_ptr,
    present_counters_ptr,
    GROUPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The decisions of runtime.stages.aria.speak for one stream, and BLOCK elements of the row.

    The first block also writes the decisions. Grid: runs of the hidden axis, streams. `present_counters` must
    not share memory with `counters`. A pending frame's rows and the next text id are loaded before the
    decision is known, so there are three rounds of loads.
    """
    stream = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_row = column < hidden
    group = tl.arange(0, GROUPS)

    text_in = tl.load(counters_ptr + stream * 4)
    frames = tl.load(counters_ptr + stream * 4 + 1)
    ended = tl.load(counters_ptr + stream * 4 + 2) != 0
    pending = tl.load(counters_ptr + stream * 4 + 3) != 0
    length = tl.load(text_length_ptr + stream)
    complete = tl.load(text_complete_ptr + stream) != 0
    codes = tl.load(codes_ptr + stream * groups + group, mask=group < groups, other=0)

    has_text = text_in < length
    wanted = tl.load(need_ptr + tl.minimum(frames, table - 1))
    next_id = tl.load(text_ids_ptr + stream * slots + text_in, mask=has_text, other=0)
    entry = group * codebook + tl.where(pending, codes, 0)  # codes are undefined unless a frame is pending
    code_rows = tl.load(
        code_embedding_ptr + entry[:, None] * hidden + column[None, :],
        mask=(group < groups)[:, None] & pending & in_row[None, :],
        other=0.0,
    )  # [GROUPS, BLOCK], loaded at once

    is_summed = summed != 0
    is_due = (~ended) & (text_in < wanted) & (is_summed | ~pending)
    feeds_text = is_due & has_text
    feeds_end = is_due & ~has_text & complete & (text_in > 0)
    feeds_frame = pending & (~is_due | feeds_text | feeds_end)
    # Without text due, padding is added to the frame.
    feeds_id = feeds_text | feeds_end | (is_summed & feeds_frame)
    is_fed = feeds_frame | feeds_id

    text_id = tl.where(feeds_text, next_id, tl.where(feeds_end, end_id, pad_id).to(tl.int64))
    text_row = tl.load(text_embedding_ptr + text_id * hidden + column, mask=in_row & feeds_id, other=0.0).to(
        tl.float32
    )
    frame_row = tl.sum(code_rows.to(tl.float32), axis=0)
    row = tl.where(feeds_frame, frame_row, 0.0) + text_row
    tl.store(row_ptr + stream * hidden + column, row.to(row_ptr.dtype.element_ty), mask=in_row)

    if tl.program_id(0) == 0:
        new_text_in = text_in + feeds_text.to(tl.int64)
        new_ended = ended | feeds_end
        sample = is_fed & (new_ended | (new_text_in >= wanted))
        tl.store(query_length_ptr + stream, is_fed.to(tl.int64))
        tl.store(sample_ptr + stream, sample)
        tl.store(may_end_ptr + stream, new_ended | (end_anywhere != 0))
        present_ptr = present_counters_ptr + stream * 4
        tl.store(present_ptr, new_text_in)
        tl.store(present_ptr + 1, frames + sample.to(tl.int64))
        tl.store(present_ptr + 2, new_ended.to(tl.int64))
        tl.store(present_ptr + 3, (sample | (pending & ~feeds_frame)).to(tl.int64))
