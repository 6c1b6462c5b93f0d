from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_options import FrameOptions, Span
from antiphon.runtime.frontend.vision.frame_choice import frame_count, frame_numbers, frame_range

# From smart_nframes of qwen-omni-utils 0.0.9 (v2_5/vision_process.py): options, frames of the
# film, its rate, frames taken.
COUNTS: list[tuple[dict[str, Any], int, float, int]] = [
    ({"nframes": 8}, 100, 25.0, 8),
    ({"nframes": 7}, 100, 25.0, 8),
    ({"nframes": 5}, 100, 25.0, 4),
    ({"min_frames": 10}, 50, 25.0, 10),
    ({"max_frames": 6}, 250, 25.0, 6),
    ({"max_frames": 7, "fps": 4.0}, 250, 25.0, 6),
    ({"min_frames": 3}, 40, 10.0, 8),
    ({"min_frames": 5, "fps": 1.0}, 40, 10.0, 6),
    ({"max_frames": 9}, 7, 10.0, 4),
    ({"min_frames": 200}, 99, 29.97, 98),
    ({"max_frames": 100}, 899, 29.97, 58),
]
# From calculate_video_frame_range there: video_start, video_end, frames, rate, first and last frame.
RANGES: list[tuple[float, float | None, int, float, tuple[int, int]]] = [
    (1.0, 2.0, 100, 25.0, (25, 50)),
    (0.5, None, 99, 29.97, (15, 98)),
    (0.0, 1.01, 50, 24.0, (0, 24)),
    (0.33, 9.0, 50, 24.0, (8, 49)),
]
# From torch.linspace(first, last, count).round().long() (torch 2.13), as fetch_video chooses frames.
NUMBERS = [
    (0, 99, [0, 14, 28, 42, 57, 71, 85, 99]),
    (25, 50, [25, 33, 42, 50]),
    (0, 249, [0, 50, 100, 149, 199, 249]),
    (7, 32, [7, 10, 13, 15, 18, 21, 24, 26, 29, 32]),
    (0, 998, [0, 91, 181, 272, 363, 454, 544, 635, 726, 817, 907, 998]),
    (3, 3, [3]),
]


@pytest.mark.parametrize(("options", "frames", "film_rate", "expected"), COUNTS)
def test_as_many_frames_are_taken_as_the_reference_takes(
    options: dict[str, Any], frames: int, film_rate: float, expected: int
) -> None:
    rate = options.get("fps", 2.0)
    assert (
        frame_count(
            FrameOptions(**{name: value for name, value in options.items() if name != "fps"}),
            frames,
            film_rate,
            rate,
        )
        == expected
    )


@pytest.mark.parametrize(("start", "end", "frames", "film_rate", "expected"), RANGES)
def test_a_span_holds_the_frames_of_the_reference(
    start: float, end: float | None, frames: int, film_rate: float, expected: tuple[int, int]
) -> None:
    assert frame_range(Span(start, end), frames, film_rate) == expected


@pytest.mark.parametrize(("first", "last", "expected"), NUMBERS)
def test_frames_are_spread_as_the_reference_spreads_them(first: int, last: int, expected: list[int]) -> None:
    assert frame_numbers(first, last, len(expected)).tolist() == expected


@given(st.integers(0, 10**5), st.integers(1, 10**4), st.data())
def test_frames_lie_within_the_span_in_order(first: int, span: int, data: st.DataObject) -> None:
    numbers = frame_numbers(first, first + span, data.draw(st.integers(2, min(span + 1, 768)))).tolist()
    assert numbers[0] == first and numbers[-1] == first + span and numbers == sorted(numbers)
    # float32, in which the reference counts, is too coarse beyond to tell frames apart
    # where nearly all are taken
    if first + span < 2048:
        assert len(set(numbers)) == len(numbers)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(
        AntiphonError,
        match=(
            "200 frames are asked of a video that has 100 in its span; "
            "give nframes or max_frames from 2 to 100"
        ),
    ):
        frame_count(FrameOptions(nframes=200), 100, 25.0, 2.0)
    with pytest.raises(
        AntiphonError, match=r"The video is 4 s long and has no two frames from video_start \(4.5 s\)"
    ):
        frame_range(Span(4.5, None), 100, 25.0)
