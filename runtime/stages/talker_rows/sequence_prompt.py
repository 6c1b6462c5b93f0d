"""The rows that the Talker of Qwen3.5-Omni reads before the answer's text.

    system part     text: im_start system newline, style, the voice's own prompt; codec: codec_bos; the
                    voice's frames; codec: codec_eos; text: im_end newline
    user parts      of every user turn: structure as text, content as hidden rows of the Thinker, at most so
                    many a turn, evenly spaced
    assistant part  text: im_start assistant newline, a named style; codec: codec_nothink think_bos think_eos,
                    or codec_think think_bos LANGUAGE think_eos;
                    text: tts_bos; codec: codec_bos; then the answer's text follows
Source: TensorRT-Edge-LLM 0.11, buildQwen3OmniNextTalkerPrefill. Unlike there, earlier answers leave no rows,
as in Qwen3-Omni's reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .rows import NOTHING, TalkerPrompt, position_range
from .tapped_rows import content_rows, is_structure, user_turns


@dataclass(frozen=True)
class SpeakingStyle:
    """How an answer is spoken: frames int64 [frames, groups] and text ids of the voice, text ids of a
    style in words, text ids of a named style, and the codec id of a language (None: the model decides).
    """

    voice_codes: np.ndarray
    voice_ids: Sequence[int] = ()
    style_ids: Sequence[int] = ()
    named_style_ids: Sequence[int] = ()
    language: int | None = None


FIXED_ROWS = 15
"""Rows that every prompt has beside the user turns and the style."""


def prompt_rows(token_ids: np.ndarray, limit: int, ids: Mapping[str, Any], style: SpeakingStyle) -> int:
    """The number of rows of `interleaved_prompt`, before the Thinker has run."""
    read = sum(
        int(is_structure(token_ids[start:end], ids).sum())
        + len(content_rows(token_ids, start, end, ids, limit))
        for start, end in user_turns(token_ids, ids)
    )
    speaking = (
        len(style.style_ids)
        + len(style.voice_ids)
        + len(style.voice_codes)
        + len(style.named_style_ids)
        + int(style.language is not None)
    )
    return FIXED_ROWS + read + speaking


def interleaved_prompt(
    token_ids: Sequence[int] | np.ndarray,
    hidden_rows: Mapping[int, np.ndarray],
    hidden_size: int,
    limit: int,
    ids: Mapping[str, Any],
    style: SpeakingStyle,
) -> TalkerPrompt:
    """The prompt for the conversation `token_ids`, the Thinker's prompt of all turns.

    `hidden_rows`: tapped Thinker rows [hidden_size] by row, at least those of `tapped_rows` with `limit`.
    Positions count the rows.
    """
    text: list[int] = []
    codec: list[int] = []
    hidden: list[np.ndarray] = []
    hidden_index: list[int] = []

    def add(*, text_ids: Sequence[int] = (), codec_ids: Sequence[int] = ()) -> None:
        text.extend([*text_ids, *[NOTHING] * len(codec_ids)])
        codec.extend([*[NOTHING] * len(text_ids), *codec_ids])

    add(text_ids=[ids["im_start"], ids["system"], ids["newline"], *style.style_ids, *style.voice_ids])
    add(codec_ids=[ids["codec_bos"]])
    first_frame, frames = len(text), np.asarray(style.voice_codes, np.int64)
    add(codec_ids=[NOTHING] * len(frames))
    add(codec_ids=[ids["codec_eos"]])
    add(text_ids=[ids["im_end"], ids["newline"]])

    history = np.asarray(token_ids, np.int64)
    for start, end in user_turns(history, ids):
        structure = start + np.flatnonzero(is_structure(history[start:end], ids))
        content = content_rows(history, start, end, ids, limit)
        is_content = set(content.tolist())
        for row in np.union1d(structure, content).tolist():
            if row in is_content:
                hidden.append(hidden_rows[row])
                hidden_index.append(len(text))
            add(text_ids=[NOTHING if row in is_content else int(history[row])])

    add(text_ids=[ids["im_start"], ids["assistant"], ids["newline"], *style.named_style_ids])
    if style.language is None:
        add(codec_ids=[ids["codec_nothink"], ids["codec_think_bos"], ids["codec_think_eos"]])
    else:
        add(codec_ids=[ids["codec_think"], ids["codec_think_bos"], style.language, ids["codec_think_eos"]])
    add(text_ids=[ids["tts_bos"]])
    add(codec_ids=[ids["codec_bos"]])
    return TalkerPrompt(
        text_ids=np.array(text, np.int64),
        codec_ids=np.array(codec, np.int64),
        hidden=np.stack(hidden).astype(np.float32, copy=False)
        if hidden
        else np.zeros((0, hidden_size), np.float32),
        hidden_index=np.array(hidden_index, np.int64),
        frames=frames,
        frame_index=first_frame + np.arange(len(frames)),
        positions=position_range(0.0, len(text)),
        next_position=float(len(text)),
    )
