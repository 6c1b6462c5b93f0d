"""The rows that one run of the Talker reads, as feeds of its engine, in every layout of a TalkerContract.

A row is the sum of its parts: a text id, a codec id, a hidden row of the Thinker, a frame. Layouts differ in
which parts share a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

NOTHING = -1
"""In text_ids and codec_ids: the row has no such part."""


@dataclass(frozen=True)
class TalkerPrompt:
    """Rows that the Talker reads before its first frame.

    text_ids and codec_ids int64 [rows] (-1: none), hidden float32 [hiddens, thinker_hidden] for the rows
    hidden_index int64 [hiddens], frames [frames, size] (codes of a voice, or none) for the rows frame_index
    int64 [frames], positions float32 [3, rows] and the position of the first row after them.
    """

    text_ids: np.ndarray
    codec_ids: np.ndarray
    hidden: np.ndarray
    hidden_index: np.ndarray
    frames: np.ndarray
    frame_index: np.ndarray
    positions: np.ndarray
    next_position: float


@dataclass(frozen=True)
class Spoken:
    """The previous frame: its codes int64 [groups] and its row float32 [talker_hidden]."""

    codes: np.ndarray
    row: np.ndarray


class TalkerRows(Protocol):
    """How text and frames become rows, in the layout and with the frames of a TalkerContract."""

    def first(self, text_ids: Sequence[int]) -> TalkerPrompt:
        """The rows before the first frame."""

    def next(self, text_ids: Sequence[int], last: Spoken) -> TalkerPrompt:
        """The rows between frame `last` and the next one."""


class SummedRows:
    """Layout `summed` with `frame_rows` (Qwen3-Omni): the text row is added to the frame's row;
    tts_pad where there is none.
    """

    def __init__(self, make_prompt: Callable[[int], TalkerPrompt], pad: int) -> None:
        """`make_prompt` gets the first text id. `pad`: the text id of rows behind the end of the text."""
        self._make_prompt, self._pad = make_prompt, pad
        self._step: TalkerPrompt | None = None
        self._position = 0.0

    def first(self, text_ids: Sequence[int]) -> TalkerPrompt:
        """See TalkerRows."""
        assert len(text_ids) == 1, "the dual track begins with one text row"
        prompt = self._make_prompt(text_ids[0])
        self._position = prompt.next_position
        self._step = TalkerPrompt(
            np.zeros(1, np.int64),
            np.full(1, NOTHING),
            prompt.hidden[:0],
            prompt.hidden_index[:0],
            prompt.frames[:0],
            np.zeros(1, np.int64),
            np.zeros((3, 1), np.float32),
            0.0,
        )
        return prompt

    def next(self, text_ids: Sequence[int], last: Spoken) -> TalkerPrompt:
        """See TalkerRows."""
        assert len(text_ids) <= 1 and self._step is not None, "the dual track adds one text row to one frame"
        step = self._step
        step.text_ids[:] = text_ids[0] if text_ids else self._pad
        step.positions[:] = self._position
        self._position += 1
        return TalkerPrompt(
            step.text_ids,
            step.codec_ids,
            step.hidden,
            step.hidden_index,
            last.row,
            step.frame_index,
            step.positions,
            self._position,
        )


class InterleavedRows:
    """Layout `interleaved` with `frame_codes` (Qwen3.5-Omni): one sequence;
    the frame's row first, then the text rows that the policy pulled.

    Positions count the rows.
    """

    def __init__(self, make_prompt: Callable[[], TalkerPrompt]) -> None:
        self._make_prompt = make_prompt
        self._hidden = np.zeros((0, 0), np.float32)
        self._position = 0.0

    def first(self, text_ids: Sequence[int]) -> TalkerPrompt:
        """See TalkerRows."""
        prompt = self._make_prompt()
        self._hidden = prompt.hidden[:0]
        text = self._rows(text_ids, prompt.frames[:0], prompt.next_position)
        self._position = text.next_position
        return TalkerPrompt(
            np.concatenate([prompt.text_ids, text.text_ids]),
            np.concatenate([prompt.codec_ids, text.codec_ids]),
            prompt.hidden,
            prompt.hidden_index,
            prompt.frames,
            prompt.frame_index,
            np.concatenate([prompt.positions, text.positions], axis=1),
            text.next_position,
        )

    def next(self, text_ids: Sequence[int], last: Spoken) -> TalkerPrompt:
        """See TalkerRows."""
        rows = self._rows(text_ids, last.codes[None], self._position)
        self._position = rows.next_position
        return rows

    def _rows(self, text_ids: Sequence[int], frames: np.ndarray, position: float) -> TalkerPrompt:
        """Rows of `frames`, then of `text_ids`."""
        text = np.concatenate([np.full(len(frames), NOTHING), np.asarray(text_ids, np.int64)])
        positions = position_range(position, len(text))
        empty = np.zeros(0, np.int64)
        return TalkerPrompt(
            text,
            np.full(len(text), NOTHING),
            self._hidden,
            empty,
            frames,
            np.arange(len(frames)),
            positions,
            position + len(text),
        )


class SummedCodeRows(InterleavedRows):
    """Layout `summed` with `frame_codes`: text row k is added to frame k - 1, as text and frame of one row;
    padding after the end of text.

    What a Talker of Qwen3.5-Omni's architecture can be trained on instead of interleaving; none is published.
    """

    def __init__(self, make_prompt: Callable[[], TalkerPrompt], pad: int) -> None:
        """`pad`: the text id of rows behind the end of the text."""
        super().__init__(make_prompt)
        self._pad = pad

    def next(self, text_ids: Sequence[int], last: Spoken) -> TalkerPrompt:
        """See TalkerRows."""
        assert len(text_ids) <= 1, "the dual track adds one text row to one frame"
        rows = self._rows(text_ids or [self._pad], last.codes[None][:0], self._position)
        self._position = rows.next_position
        return dataclasses.replace(rows, frames=last.codes[None], frame_index=np.zeros(1, np.int64))


def position_range(start: float, rows: int) -> np.ndarray:
    """Positions float32 [3, rows] that count up from `start`, equal on all axes."""
    return np.broadcast_to(np.arange(rows, dtype=np.float32) + np.float32(start), (3, rows))


def in_chunks(rows: TalkerPrompt, chunk: int, frame_input: str) -> Iterator[dict[str, np.ndarray]]:
    """Engine feeds of `rows`, at most `chunk` rows a run; `frame_input`: see TalkerContract."""
    total = len(rows.text_ids)
    for start in range(0, total, chunk):
        end = min(start + chunk, total)
        hidden = slice(*np.searchsorted(rows.hidden_index, (start, end)))
        frames = slice(*np.searchsorted(rows.frame_index, (start, end)))
        yield {
            "text_ids": rows.text_ids[None, start:end],
            "codec_ids": rows.codec_ids[None, start:end],
            "hidden": rows.hidden[hidden],
            "hidden_index": rows.hidden_index[hidden] - start,
            frame_input: rows.frames[frames],
            "frame_index": rows.frame_index[frames] - start,
            "positions": rows.positions[:, None, start:end],
        }
