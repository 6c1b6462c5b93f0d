"""Frames and tokens are aligned from codes alone:
whoever hears every token often enough knows where it is said.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.scripts.train_tiny.alignment import PARTS, Aligner

WORDS = 9


def utterances(count: int, seed: int) -> tuple[list[list[int]], list[np.ndarray], list[np.ndarray]]:
    """Texts of random words, first codes and the index of the word that each frame says:
    word w has the codes 3 w to 3 w + 2, and now and then any.
    """
    noise = np.random.default_rng(seed)
    texts, codes, spoken = [], [], []
    for _ in range(count):
        text = noise.permutation(WORDS)[: noise.integers(2, 7)].tolist()
        lengths = noise.integers(2, 6, len(text))
        index = np.repeat(np.arange(len(text)), lengths)
        sounds = 3 * np.array(text)[index] + noise.integers(0, 3, len(index))
        codes.append(
            np.where(noise.random(len(index)) < 0.1, noise.integers(0, 3 * WORDS, len(index)), sounds)
        )
        texts.append(text)
        spoken.append(index)
    return texts, codes, spoken


@pytest.fixture(scope="module")
def aligner() -> Aligner:
    texts, codes, _ = utterances(120, 0)
    return Aligner(texts, codes, WORDS, 3 * WORDS)


def test_unseen_utterances_are_aligned_to_the_frame(aligner: Aligner) -> None:
    errors = [
        np.abs(aligner.spoken(text, rows) - index)
        for text, rows, index in zip(*utterances(40, 1), strict=True)
    ]
    assert np.mean(np.concatenate(errors) > 0) < 0.12 and max(map(max, errors)) <= 1


@settings(deadline=None)
@given(
    st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=8),
    st.lists(st.integers(0, 3 * WORDS - 1), max_size=40),
)
def test_the_place_in_the_text_never_falls_and_stays_within_it(
    aligner: Aligner, text: list[int], codes: list[int]
) -> None:
    spoken = aligner.spoken(text, np.array(codes, np.int64))
    assert len(spoken) == len(codes) and (np.diff(spoken) >= 0).all()
    if codes:
        assert spoken[0] == 0 and spoken[-1] < len(text)
        assert spoken[-1] == len(text) - 1 or len(codes) <= PARTS * len(text)


def test_too_few_frames_for_a_text_are_spread_evenly(aligner: Aligner) -> None:
    assert aligner.spoken([0, 1, 2, 3], np.zeros(4, np.int64)).tolist() == [0, 1, 2, 3]
    assert aligner.spoken([0, 1, 2, 3], np.zeros(0, np.int64)).tolist() == []
