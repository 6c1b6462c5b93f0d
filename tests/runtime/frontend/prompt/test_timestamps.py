"""Textual time: when patches and tokens are, and where it is written."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.frontend.audio.audio_layout import audio_tokens
from antiphon.runtime.frontend.prompt.positions import MediaItem
from antiphon.runtime.frontend.prompt.timestamps import (
    AudioClock,
    MarkedIds,
    Timestamps,
    audio_piece,
    patch_seconds,
    video_tokens,
)

AUDIO, VIDEO, AUDIO_START, AUDIO_END, VISION_START, VISION_END = range(1, 7)
IDS = MarkedIds(AUDIO, VIDEO, AUDIO_START, AUDIO_END, VISION_START, VISION_END)
CLOCK = AudioClock(50, 4, 0.01)
LETTERS = {AUDIO: "a", VIDEO: "v", AUDIO_START: "(", AUDIO_END: ")", VISION_START: "[", VISION_END: "]"}


def encode(text: str) -> np.ndarray:
    return np.array([100 + ord(letter) for letter in text], np.int64)


def readable(ids: np.ndarray) -> str:
    return "".join(LETTERS[index] if index in LETTERS else chr(index - 100) for index in ids.tolist())


@settings(max_examples=100, deadline=None)
@given(frames=st.integers(1, 40), rate=st.sampled_from([0.5, 1.0, 2.0, 3.0, 29.97]), depth=st.integers(1, 4))
def test_the_time_of_a_patch_equals_the_reference(frames: int, rate: float, depth: int) -> None:
    processing = pytest.importorskip("transformers.models.qwen3_vl.processing_qwen3_vl")
    expected = processing.Qwen3VLProcessor._calculate_timestamps(
        SimpleNamespace(), list(range(frames)), rate, depth
    )
    assert patch_seconds(np.arange(frames) / rate, depth) == pytest.approx(expected)


@pytest.mark.parametrize("frames", [1, 16, 17, 100, 101, 116, 250, 1600])
def test_a_token_is_heard_when_its_frames_are(frames: int) -> None:
    chunks = [range(start, min(start + 100, frames)) for start in range(0, frames, 100)]
    expected = [frame / 100 for chunk in chunks for frame in chunk[::16]]
    assert CLOCK.seconds(audio_tokens(frames, 50, 4)).tolist() == pytest.approx(expected)


def film(patches: int, seconds: float, heard: int = 0) -> MediaItem:
    return MediaItem(
        "video",
        (patches, 2, 4),
        seconds,
        heard,
        times=tuple((index + 0.5) * seconds for index in range(patches)),
    )


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (film(1, 1.0), "[vv]"),
        (film(3, 2.0), "[vv]3[vv]5[vv]"),
        (film(2, 1.0, heard=14), "[vv](aaaaaaa)2[vv](aaaaaaa)"),
        (film(2, 1.0, heard=10), "[vv](aaaaaaa)2[vv](aaa)"),
        (film(2, 1.0, heard=3), "[vv](aaa)2[vv]"),  # the sound ends early
        (film(2, 1.0, heard=30), "[vv](aaaaaaa)2[vv](" + "a" * 23 + ")"),  # the last patch takes the rest
        (film(4, 0.1, heard=3), "[vv](a)0[vv](a)0[vv]0[vv](a)"),  # tokens at 0, 0.16 and 0.32 s
    ],
)
def test_a_video_is_written_patch_by_patch(item: MediaItem, expected: str) -> None:
    found = video_tokens(item, 2, IDS, CLOCK, Timestamps("{seconds:.0f}"), encode)
    assert readable(found) == expected and found.dtype == np.int64


def test_a_video_without_a_format_has_marks_only() -> None:
    assert (
        readable(video_tokens(film(2, 1.0, heard=8), 2, IDS, CLOCK, Timestamps(""), encode))
        == "[vv](aaaaaaa)[vv](a)"
    )


@pytest.mark.parametrize(
    ("tokens", "seconds", "expected"),
    [
        (10, 0.0, "a" * 10),
        (10, 1.0, "<0>aaaaaaa<1>aaa"),
        (14, 2.0, "<0>" + "a" * 14),
        (15, 2.0, "<0>" + "a" * 14 + "<2>a"),
        # tokens at 0, 0.16, 0.32, 0.48, 0.64 s: the first at or after 0.5 s is the fifth
        (9, 0.5, "<0>aaaa<0.5>aaa<1>aa"),
        (3, 0.1, "<0>a<0.1>a<0.3>a"),  # nothing begins between 0.2 and 0.3 s
    ],
)
def test_audio_tells_the_time_at_the_first_token_of_each_span(
    tokens: int, seconds: float, expected: str
) -> None:
    assert (
        readable(audio_piece(0, tokens, AUDIO, CLOCK, Timestamps("<{seconds:.3g}>", seconds), encode))
        == expected
    )


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    seconds=st.sampled_from([0.0, 0.1, 0.16, 1.0, 2.5, 30.0]),
)
def test_pieces_of_audio_join_to_the_whole(pieces: list[int], seconds: float) -> None:
    stamps, parts, first = Timestamps("<{seconds}>", seconds), [], 0
    for tokens in pieces:
        parts.append(audio_piece(first, tokens, AUDIO, CLOCK, stamps, encode))
        first += tokens
    whole = audio_piece(0, first, AUDIO, CLOCK, stamps, encode)
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert (whole == AUDIO).sum() == first
