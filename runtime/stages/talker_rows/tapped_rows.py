"""The hidden rows of the Thinker that the Talker will read, by the token ids alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def user_turns(token_ids: np.ndarray, ids: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """(first row, row after the last) of every user turn: from its im_start to the next im_start."""
    starts = np.flatnonzero(token_ids == ids["im_start"])
    for start, end in zip(starts, [*starts, len(token_ids)][1:], strict=True):
        if start + 1 < end and token_ids[start + 1] == ids["user"]:
            yield int(start), int(end)


def is_structure(token_ids: np.ndarray, ids: Mapping[str, Any]) -> np.ndarray:
    """bool [tokens]: the tokens of a user turn that are no content: im_start, im_end, the role, line breaks.

    Source: TensorRT-Edge-LLM 0.11, buildQwen3OmniNextTalkerPrefill.
    """
    return np.isin(token_ids, [ids["im_start"], ids["im_end"], ids["user"], ids["newline"]])


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Indices int64 of at most `limit` of `count` items, evenly spaced with both ends:
    floor(i * (count - 1) / (limit - 1)); limit 0 takes all.
    """
    if limit == 0 or count <= limit:
        return np.arange(count)
    return np.arange(limit) * (count - 1) // max(1, limit - 1)


def content_rows(
    token_ids: np.ndarray, start: int, end: int, ids: Mapping[str, Any], limit: int
) -> np.ndarray:
    """Rows int64 of the content of the user turn start .. end that the Talker reads,
    at most `limit` of them.
    """
    content = start + np.flatnonzero(~is_structure(token_ids[start:end], ids))
    return content[evenly_spaced(len(content), limit)]


def tapped_rows(token_ids: np.ndarray, ids: Mapping[str, Any], limit: int | None) -> np.ndarray:
    """Rows int64 whose hidden state the Talker's prompt may need, ascending.

    `limit` None: every multimodal token (hidden_taps `media` of TalkerContract). Else the evenly spaced
    content of each user turn (`content`); all of it while the turn is open, because its length decides which.
    """
    if limit is None:
        return np.flatnonzero(
            np.isin(token_ids, [ids[name] for name in ("audio", "image", "video") if name in ids])
        )
    turns = []
    for start, end in user_turns(token_ids, ids):
        is_closed = bool((token_ids[start:end] == ids["im_end"]).any())
        turns.append(content_rows(token_ids, start, end, ids, limit if is_closed else 0))
    return np.concatenate(turns) if turns else np.zeros(0, np.int64)
