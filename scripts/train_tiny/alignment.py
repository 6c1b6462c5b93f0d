"""Alignment of each frame of an utterance with a token of its text, from the first codes alone.

The first codes carry the words (codec_training), so a hidden Markov model is enough. A token is a few states
in a row, and a state has a distribution of codes. Best paths and distributions are estimated in turn,
starting from equal durations (Rabiner 1989, section III). The Talker's training needs the alignment, the
runtime does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..console import progress_bar

PARTS = 3
"""States of a token: its beginning, middle and end. A path may skip every other state."""
ROUNDS = 6
PRIOR = 4.0
"""Weight, in frames, of a token's distribution in that of its states, and of all speech's in a token's."""


class Aligner:
    """Learns from utterances (texts as token ids, first codes int64 [frames]); aligns them and their
    variations."""

    def __init__(
        self, texts: Sequence[Sequence[int]], codes: Sequence[np.ndarray], vocabulary: int, codebook: int
    ) -> None:
        self._vocabulary, self._codebook = vocabulary, codebook
        paths = [
            np.arange(len(rows)) * (PARTS * len(text)) // max(1, len(rows))
            for text, rows in zip(texts, codes, strict=True)
        ]
        with progress_bar() as report:
            for done in range(ROUNDS):
                report("aligning text and codes", done, ROUNDS, None)
                self._count(texts, codes, paths)
                paths = [self._path(text, rows) for text, rows in zip(texts, codes, strict=True)]

    def spoken(self, text: Sequence[int], codes: np.ndarray) -> np.ndarray:
        """The index into `text` of the token that each frame speaks, int64 [frames], never decreasing.

        Silence belongs to the token before it.
        """
        return self._path(text, codes) // PARTS

    def _count(
        self, texts: Sequence[Sequence[int]], codes: Sequence[np.ndarray], paths: Sequence[np.ndarray]
    ) -> None:
        """Estimate the distributions of codes along `paths`."""
        counts = np.zeros((self._vocabulary, PARTS, self._codebook))
        for text, rows, path in zip(texts, codes, paths, strict=True):
            np.add.at(counts, (np.asarray(text, np.int64)[path // PARTS], path % PARTS, rows), 1)
        everywhere = counts.sum((0, 1)) + 1
        tokens = _mixed(counts.sum(1), everywhere / everywhere.sum())
        self._scores = np.log(_mixed(counts, tokens[:, None]))

    def _path(self, text: Sequence[int], codes: np.ndarray) -> np.ndarray:
        """The states PARTS * index + part of the best path through `text`; an even spread if there are too
        few frames."""
        states, frames = PARTS * len(text), len(codes)
        if 2 * frames <= states or not states:
            return np.arange(frames) * states // max(1, frames)
        scores = self._scores[np.asarray(text, np.int64)].reshape(states, -1)[:, codes].T  # [frames, states]
        best = np.full(states, -np.inf)
        best[:2] = scores[0, :2]
        steps = np.zeros((frames, states), np.int64)
        ways = np.full((3, states), -np.inf)
        for frame in range(1, frames):
            ways[0], ways[1, 1:], ways[2, 2:] = best, best[:-1], best[:-2]
            steps[frame] = ways.argmax(0)
            best = ways.max(0) + scores[frame]
        path = np.zeros(frames, np.int64)
        state = states - 1 if best[-1] >= best[-2] else states - 2
        for frame in range(frames - 1, -1, -1):
            path[frame] = state
            state -= steps[frame, state]
        return path


def _mixed(counts: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Distributions along the last axis, from observed `counts` and PRIOR frames of `prior`."""
    return (counts + PRIOR * prior) / (counts.sum(-1, keepdims=True) + PRIOR)
