"""Reference implementation of AriaStep, in NumPy."""

from __future__ import annotations

import numpy as np

Outputs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def aria_step(
    need: np.ndarray,
    text_ids: np.ndarray,
    text_length: np.ndarray,
    text_complete: np.ndarray,
    codes: np.ndarray,
    counters: np.ndarray,
    text_embedding: np.ndarray,
    code_embedding: np.ndarray,
    end_id: int,
    pad_id: int,
    summed: bool,
    end_anywhere: bool,
) -> Outputs:
    """One row per stream, in the order of `runtime.stages.aria.speak`; decisions depend on integers only.

    need int64 [table], at least 1 and never decreasing: entry k - 1 is the number of text rows before frame
    k; later frames use the last entry. text_ids int64 [batch, slots], slots at least 1: the text that has
    arrived, of which text_length int64 [batch] ids are valid. text_complete bool [batch]: no more text
    follows. codes int64 [batch, groups]: the last frame. counters int64 [batch, 4]: text rows fed, frames
    sampled, whether the end is fed, whether the last frame's row is pending; zeros before the first step.
    text_embedding [vocab, hidden]; code_embedding [groups * codebook, hidden], codebook g from row g *
    codebook. `summed` (dual track): the text row, or the row of pad_id where no text is due, is added to the
    frame's row. Else they are separate rows, the frame's first.

    Returns row [batch, hidden]; query_length int64 [batch], 0 for a hold, whose row is zeros; sample bool
    [batch], whether a frame is sampled after this row; may_end bool [batch], whether that frame may be codec
    EOS; the new counters, which already count that frame. A text without tokens holds for ever.
    """
    steps = [
        _step(need, *stream, text_embedding, code_embedding, end_id, pad_id, bool(summed), bool(end_anywhere))
        for stream in zip(text_ids, text_length, text_complete, codes, counters, strict=True)
    ]
    rows, lengths, sample, may_end, present = zip(*steps, strict=True)
    return (
        np.stack(rows),
        np.array(lengths, np.int64),
        np.array(sample, bool),
        np.array(may_end, bool),
        np.array(present, np.int64),
    )


def _step(
    need: np.ndarray,
    text_ids: np.ndarray,
    text_length: int,
    text_complete: bool,
    codes: np.ndarray,
    counters: np.ndarray,
    text_embedding: np.ndarray,
    code_embedding: np.ndarray,
    end_id: int,
    pad_id: int,
    summed: bool,
    end_anywhere: bool,
) -> tuple[np.ndarray, int, bool, bool, tuple[int, int, bool, bool]]:
    text_in, frames = int(counters[0]), int(counters[1])
    ended, pending = bool(counters[2]), bool(counters[3])
    wanted = int(need[min(frames, len(need) - 1)])
    text_id = None
    is_due = not ended and text_in < wanted and (summed or not pending)
    if is_due and text_in < text_length:
        text_id = int(text_ids[text_in])
        text_in += 1
    elif is_due and text_complete and text_in > 0:
        text_id = end_id
        ended = True
    elif summed and pending and not is_due:
        text_id = pad_id
    feeds_frame = pending and not (is_due and text_id is None)
    row = np.zeros(text_embedding.shape[1], text_embedding.dtype)
    if feeds_frame:
        codebook = len(code_embedding) // len(codes)
        row = code_embedding[np.arange(len(codes)) * codebook + codes].sum(0, dtype=row.dtype)
    if text_id is not None:
        row = row + text_embedding[text_id]
    is_fed = feeds_frame or text_id is not None
    sample = is_fed and (ended or text_in >= wanted)
    return (
        row,
        int(is_fed),
        sample,
        ended or end_anywhere,
        (text_in, frames + sample, ended, sample or pending and not feeds_frame),
    )
