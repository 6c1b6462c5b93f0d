"""ARIA: when text rows and speech frames take turns.

Text is pulled, never pushed: a policy is one function need(k), the number of text rows that must be in before frame k (counted from
1). The frames are a function of text and seed alone, never of when the text arrived.
Source: Qwen3.5-Omni report (arXiv:2604.15804), sections 2.4 and 2.5; dual track: Qwen3-Omni report (arXiv:2509.17765).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from .errors import AntiphonError


@dataclass(frozen=True)
class Policy:
    """An interleave: `need(k)` text rows before frame k; `end_anywhere`: the Talker may end before its text did (Qwen3-Omni)."""

    need: Callable[[int], int]
    end_anywhere: bool = False


def dual_track() -> Policy:
    """Qwen3-Omni: text row k is added to the row that frame k is sampled from, padding after the end."""
    return Policy(lambda frame: frame, end_anywhere=True)


def chunked(text_rows: int, frames: int) -> Policy:
    """Qwen3.5-Omni as shipped (4, 4): `text_rows` rows of text, then `frames` frames, and so on."""
    if text_rows < 1 or frames < 1:
        raise AntiphonError(f"chunked({text_rows}, {frames}) asks for an empty chunk; expected two counts of at least 1.")
    return Policy(lambda frame: text_rows * -(-frame // frames))


def adaptive(lead: int, frames_per_row: float | Fraction) -> Policy:
    """ARIA as published: at most `frames_per_row` (the ratio R) frames per text row at any prefix, and `lead` rows before the first frame."""
    ratio = Fraction(frames_per_row) if math.isfinite(frames_per_row) else Fraction(0)
    if lead < 1 or ratio <= 0:
        raise AntiphonError(f"adaptive({lead}, {frames_per_row}) cannot run; expected a lead of at least 1 and a finite ratio above 0.")
    return Policy(lambda frame: max(lead, math.ceil(frame / ratio)))


class TextSource(Protocol):
    """Where text comes from."""

    def next(self) -> int | None:
        """The next text id, waiting for it; None once the text has ended."""


class FrameSource(Protocol):
    """The Talker with its code predictor, seen from the schedule."""

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        """Feed pending text rows with the last frame's row and sample a frame: codes [groups], or None when the Talker ended."""


@dataclass(frozen=True)
class Frame:
    """One codec frame: `index` from 0, `codes` int64 [groups], `cursor` = text tokens the schedule had consumed."""

    index: int
    codes: np.ndarray
    cursor: int


def speak(policy: Policy, text: TextSource, talker: FrameSource, end_id: int, budget: Callable[[int], int]) -> Iterator[Frame]:
    """Pull text as the policy needs it and yield frames until the Talker ends.

    `end_id` is the text id fed once after the last token (tts_eos). `budget` gives the frames allowed for the text tokens known so
    far; the iterator ends there without asking the Talker again. A text of no tokens gives no frames. The caller tells the two ends
    apart by whether `step` returned None.
    """
    frames = cursor = 0
    ended = False
    pending: list[int] = []
    while True:
        # after the end no row is pulled: the Talker feeds padding by itself where its policy wants a row per frame
        while not ended and cursor < policy.need(frames + 1):
            token = text.next()
            if token is None:
                ended = True
                if cursor == 0:
                    return
                pending.append(end_id)
            else:
                cursor += 1
                pending.append(token)
        if frames >= budget(cursor):
            return
        codes = talker.step(pending, ended or policy.end_anywhere)
        if codes is None:
            return
        pending = []
        yield Frame(frames, codes, cursor)
        frames += 1
