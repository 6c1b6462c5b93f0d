"""AriaStep inside stage modules: the PyTorch op `antiphon::aria_step`."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("antiphon::aria_step", mutates_args=())
def aria_step(
    need: Tensor,
    text_ids: Tensor,
    text_length: Tensor,
    text_complete: Tensor,
    codes: Tensor,
    counters: Tensor,
    text_embedding: Tensor,
    code_embedding: Tensor,
    end_id: int,
    pad_id: int,
    summed: bool,
    end_anywhere: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See plugins.registry.ARIA_STEP.

    It never reads a tensor back to the host: a hold returns a row of zeros.
    """
    text_in, frames = counters[:, 0], counters[:, 1]
    ended, pending = counters[:, 2] != 0, counters[:, 3] != 0
    wanted = need[frames.clamp(max=len(need) - 1)]
    is_due = ~ended & (text_in < wanted)
    if not summed:
        is_due &= ~pending
    feeds_text = is_due & (text_in < text_length)
    feeds_end = is_due & ~feeds_text & text_complete & (text_in > 0)
    feeds_frame = pending & (~is_due | feeds_text | feeds_end)
    feeds_id = feeds_text | feeds_end
    if summed:
        feeds_id = feeds_id | feeds_frame  # without text due, padding is added to the frame
    next_id = text_ids.gather(1, text_in.clamp(max=text_ids.shape[1] - 1)[:, None])[:, 0]
    ids = torch.where(feeds_text, next_id, torch.where(feeds_end, end_id, pad_id))
    groups = codes.shape[1]
    codebook = code_embedding.shape[0] // groups
    places = torch.where(pending[:, None], codes, 0) + codebook * torch.arange(groups, device=codes.device)
    frame_row = torch.where(feeds_frame[:, None], code_embedding[places].sum(1), 0)
    row = frame_row + torch.where(feeds_id[:, None], text_embedding[ids], 0)
    is_fed = feeds_id | feeds_frame
    text_in = text_in + feeds_text
    ended = ended | feeds_end
    sample = is_fed & (ended | (text_in >= wanted))
    may_end = torch.ones_like(ended) if end_anywhere else ended.clone()
    present = torch.stack(
        [text_in, frames + sample, ended.long(), (sample | pending & ~feeds_frame).long()], dim=1
    )
    return row, is_fed.long(), sample, may_end, present


@aria_step.register_fake
def _(
    need: Tensor,
    text_ids: Tensor,
    text_length: Tensor,
    text_complete: Tensor,
    codes: Tensor,
    counters: Tensor,
    text_embedding: Tensor,
    code_embedding: Tensor,
    end_id: int,
    pad_id: int,
    summed: bool,
    end_anywhere: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    row = text_embedding.new_empty((codes.shape[0], text_embedding.shape[1]))
    return (
        row,
        torch.empty_like(text_length),
        torch.empty_like(text_complete),
        torch.empty_like(text_complete),
        torch.empty_like(counters),
    )
