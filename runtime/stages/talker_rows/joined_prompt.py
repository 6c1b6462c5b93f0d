"""The rows that the Talker of Qwen3-Omni reads before its first frame.

Source: Qwen3OmniMoeForConditionalGeneration.generate (transformers 5.23), for a single conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .rows import NOTHING, TalkerPrompt

ASSISTANT_ROWS = 9


class TalkerPositions(Protocol):
    """The front end's part: positions of the Talker's prompt."""

    def talker_positions(
        self, token_ids_user: np.ndarray, media: Sequence[Any], trailing: int = 9
    ) -> tuple[np.ndarray, float]:
        """float32 [3, user tokens + trailing], and the position of the row after them."""


def user_rows(token_ids: np.ndarray, ids: Mapping[str, Any]) -> np.ndarray:
    """Rows int64 [user tokens] of `token_ids` that lie in user turns, in order.

    A token belongs to the last im_start before it (the first token of all, where there is none); its role
    is the token after that.
    """
    starts = np.maximum.accumulate(np.where(token_ids == ids["im_start"], np.arange(len(token_ids)), 0))
    roles = token_ids[np.minimum(starts + 1, len(token_ids) - 1)]
    return np.flatnonzero(roles == ids["user"])


def talker_prompt(
    token_ids: Sequence[int] | np.ndarray,
    hidden_rows: Mapping[int, np.ndarray],
    hidden_size: int,
    media: Sequence[Any],
    ids: Mapping[str, Any],
    voice: int,
    first_token: int,
    front_end: TalkerPositions,
    row_size: int,
) -> TalkerPrompt:
    """All user turns of the conversation, then the nine rows that open the answer.

    `token_ids`: the Thinker's prompt of all turns. `hidden_rows`: tapped Thinker rows of its multimodal
    tokens, by row, each [hidden_size]. `voice`: codec id of the speaker. `first_token`: the first text id of
    the answer. `row_size`: of a frame's row.
    """
    history = np.asarray(token_ids, np.int64)
    rows = user_rows(history, ids)
    user_ids = history[rows]
    is_media = np.isin(user_ids, [ids[name] for name in ("audio", "image", "video") if name in ids])
    hidden_index = np.flatnonzero(is_media)
    hidden = (
        np.stack([hidden_rows[int(row)] for row in rows[is_media]])
        if len(hidden_index)
        else np.zeros((0, hidden_size), np.float32)
    )

    pad, none = ids["tts_pad"], NOTHING
    opening = [
        ids["im_start"],
        ids["assistant"],
        ids["newline"],
        pad,
        pad,
        pad,
        pad,
        ids["tts_bos"],
        first_token,
    ]
    codec = [
        none,
        none,
        none,
        ids["codec_nothink"],
        ids["codec_think_bos"],
        ids["codec_think_eos"],
        voice,
        ids["codec_pad"],
        ids["codec_bos"],
    ]
    positions, next_position = front_end.talker_positions(user_ids, media, trailing=ASSISTANT_ROWS)
    return TalkerPrompt(
        text_ids=np.concatenate([np.where(is_media, none, user_ids), opening]),
        codec_ids=np.concatenate([np.full(len(user_ids), none), codec]),
        hidden=hidden.astype(np.float32, copy=False),
        hidden_index=hidden_index,
        frames=np.zeros((0, row_size), np.float32),
        frame_index=np.zeros(0, np.int64),
        positions=np.asarray(positions, np.float32),
        next_position=float(next_position),
    )
