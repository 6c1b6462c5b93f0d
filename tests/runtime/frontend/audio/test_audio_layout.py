"""The layout of mel clips against a slow, literal cut into chunks and windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio.audio_layout import audio_calls, audio_layout, audio_tokens

LENGTHS = st.lists(st.integers(1, 2000), min_size=1, max_size=5)
WINDOWS = st.sampled_from([(50, 800), (50, 100), (50, 250), (12, 75), (4, 32)])


def clips_of(lengths: list[int]) -> list[np.ndarray]:
    """Clips whose every value tells the clip and the frame it comes from; the two mel rows differ in sign."""
    ramps = [
        10_000.0 * number + np.arange(length, dtype=np.float32) + 1
        for number, length in enumerate(lengths, start=1)
    ]
    return [np.stack((ramp, -ramp)) for ramp in ramps]


def halved(frames: int, times: int = 3) -> int:
    for _ in range(times):
        frames = (frames - 1) // 2 + 1
    return frames


def chunk_pieces(length: int, size: int) -> list[int]:
    return [min(size, length - start) for start in range(0, length, size)]


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [(1, 1), (8, 1), (9, 2), (10, 2), (92, 12), (97, 13), (100, 13), (101, 14), (801, 105), (3000, 390)],
)
def test_tokens_follow_the_published_rule(frames: int, tokens: int) -> None:
    assert audio_tokens(frames, 50) == tokens


@given(st.integers(1, 100_000), st.sampled_from([12, 50, 100]), st.sampled_from([3, 4]))
def test_tokens_are_those_of_the_whole_chunks_and_of_the_rest(
    frames: int, n_window: int, convolutions: int
) -> None:
    full = 2 * n_window
    rest = halved(frames % full, convolutions) if frames % full else 0
    assert audio_tokens(frames, n_window, convolutions) == frames // full * halved(full, convolutions) + rest


def test_four_convolutions_give_seven_tokens_a_second() -> None:
    assert [audio_tokens(frames, 50, convolutions=4) for frames in (1, 16, 17, 100, 101, 800, 3_600_000)] == [
        1,
        1,
        2,
        7,
        8,
        56,
        252_000,
    ]


@given(st.integers(1, 100_000))
def test_tokens_equal_the_published_formula_with_its_literal_13(frames: int) -> None:
    assert audio_tokens(frames, 50) == (halved(frames % 100) if frames % 100 else 0) + frames // 100 * 13


@settings(max_examples=60, deadline=None)
@given(LENGTHS, WINDOWS, st.sampled_from([3, 4]))
def test_layout_equals_a_literal_cut(lengths: list[int], windows: tuple[int, int], convolutions: int) -> None:
    n_window, n_window_infer = windows
    clips = clips_of(lengths)
    feeds, tokens = audio_layout(clips, n_window, n_window_infer, convolutions=convolutions)

    pieces = [piece for length in lengths for piece in chunk_pieces(length, 2 * n_window)]
    assert feeds["chunks"].shape == (len(pieces), 2, max(pieces))
    joined = np.concatenate(
        [chunk[:, :piece] for chunk, piece in zip(feeds["chunks"], pieces, strict=True)], axis=1
    )
    np.testing.assert_array_equal(joined, np.concatenate(clips, axis=1))
    assert all(not chunk[:, piece:].any() for chunk, piece in zip(feeds["chunks"], pieces, strict=True))

    width = halved(max(pieces), convolutions)
    rows = [
        number * width + place
        for number, piece in enumerate(pieces)
        for place in range(halved(piece, convolutions))
    ]
    limit = width * (n_window_infer // (2 * n_window))
    expected_windows = [piece for count in tokens for piece in chunk_pieces(count, limit)]
    assert feeds["window_length"].tolist() == expected_windows
    assert tokens == [audio_tokens(length, n_window, convolutions) for length in lengths]
    assert feeds["window_index"].reshape(-1)[feeds["output_index"]].tolist() == rows
    window_width = max(expected_windows)
    assert feeds["window_index"].shape == (len(expected_windows), window_width)
    assert feeds["output_index"].tolist() == [
        number * window_width + place
        for number, piece in enumerate(expected_windows)
        for place in range(piece)
    ]
    padding = np.delete(feeds["window_index"].reshape(-1), feeds["output_index"])
    assert not padding.any()
    assert [feed.dtype.name for feed in feeds.values()] == ["float32", "int64", "int64", "int64"]


@settings(max_examples=40, deadline=None)
@given(LENGTHS, WINDOWS, st.integers(1, 4), st.sampled_from([3, 4]))
def test_small_calls_hold_the_chunks_and_windows_of_one_call(
    lengths: list[int], windows: tuple[int, int], max_windows: int, convolutions: int
) -> None:
    clips = clips_of(lengths)
    whole, _ = audio_layout(clips, *windows, convolutions=convolutions)
    parts = list(audio_calls(clips, *windows, max_windows=max_windows, convolutions=convolutions))
    np.testing.assert_array_equal(np.concatenate([part["chunks"] for part in parts]), whole["chunks"])
    np.testing.assert_array_equal(
        np.concatenate([part["window_length"] for part in parts]), whole["window_length"]
    )
    assert all(len(part["window_length"]) <= max_windows for part in parts)
    assert sum(len(part["output_index"]) for part in parts) == len(whole["output_index"])


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        ([], "got no clip"),
        ([np.zeros((2, 5)), np.zeros((2, 0))], "clip 1 is empty"),
        ([np.zeros(7)], r"shape \(7,\)"),
        ([np.zeros((2, 5)), np.zeros((3, 5))], r"clip 1 has the shape \(3, 5\)"),
    ],
)
def test_bad_clips_are_refused_in_one_sentence(clips: list[np.ndarray], words: str) -> None:
    with pytest.raises(AntiphonError, match=words):
        audio_layout(clips, 50, 800)
    with pytest.raises(AntiphonError, match=words):
        list(audio_calls(clips, 50, 800))
