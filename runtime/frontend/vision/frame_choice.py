"""Choose the frames of a video file by the reference's formulas, for parts that have such options.

Source: smart_nframes and calculate_video_frame_range of qwen-omni-utils 0.0.9 (vision_process.py); those of
qwen-vl-utils 0.0.14 are the same. Without such options, frames are chosen by time (see video).
"""

from __future__ import annotations

import math

import numpy as np

from ...bundle.errors import InvalidInput
from ..media.media_options import FrameOptions, Span

PAIR = 2
"""The number of frames is a multiple of this (FRAME_FACTOR)."""
FEWEST, MOST = 4, 768
"""Default min_frames and max_frames of a video (FPS_MIN_FRAMES, FPS_MAX_FRAMES)."""


def frame_count(options: FrameOptions, frames: int, film_rate: float, rate: float) -> int:
    """The number of frames to take from a film of `frames` frames.

    `film_rate`: frames per second of the film. `rate`: frames per second to take. Raises AntiphonError if the
    film has too few frames.
    """
    if options.nframes is not None:
        count = round(options.nframes / PAIR) * PAIR
    else:
        fewest = math.ceil((FEWEST if options.min_frames is None else options.min_frames) / PAIR) * PAIR
        most = (
            math.floor((min(MOST, frames) if options.max_frames is None else options.max_frames) / PAIR)
            * PAIR
        )
        count = math.floor(min(min(max(frames / film_rate * rate, fewest), most), frames) / PAIR) * PAIR
    if not PAIR <= count <= frames:
        raise InvalidInput(
            f"{count} frames are asked of a video that has {frames} in its span; "
            f"give nframes or max_frames from {PAIR} to {frames}."
        )
    return count


def frame_range(span: Span, frames: int, film_rate: float) -> tuple[int, int]:
    """The first and last frame number within `span` of a film. Raises AntiphonError if it has fewer than two
    frames.
    """
    seconds = frames / film_rate
    first = math.ceil(min(span.start, seconds) * film_rate)
    last = frames - 1 if span.end is None else min(math.floor(min(span.end, seconds) * film_rate), frames - 1)
    if not span.is_whole and first >= last:
        raise InvalidInput(
            f"The video is {seconds:g} s long and has no two frames from video_start ({span.start:g} s) "
            "to its end; give a longer span."
        )
    return first, last


def frame_numbers(first: int, last: int, count: int) -> np.ndarray:
    """int64 [count]: frame numbers spread evenly from `first` to `last`, both included.

    Equals torch.linspace(...).round().long() to the last bit.
    """
    step = (np.float32(last) - np.float32(first)) / np.float32(max(count - 1, 1))
    places = np.arange(count)
    upward = np.float32(first) + step * places.astype(np.float32)
    downward = np.float32(last) - step * (count - 1 - places).astype(np.float32)
    spread = np.where(places < count // 2, upward, downward) if count > 1 else np.array([first], np.float32)
    return np.rint(spread).astype(np.int64)
