"""Which frames of a video file are taken where a part says so: the formulas of the reference.

Source: smart_nframes and calculate_video_frame_range of qwen-omni-utils 0.0.9 (vision_process.py), which are those of qwen-vl-utils 0.0.14. Without
such options frames are taken by their time (see video).
"""

from __future__ import annotations

import math

import numpy as np

from ...bundle.errors import InvalidInput
from ..media.media_options import FrameOptions, Span

PAIR = 2
"""Frames go in pairs (FRAME_FACTOR)."""
FEWEST, MOST = 4, 768
"""Frames of a video where min_frames and max_frames are not given (FPS_MIN_FRAMES, FPS_MAX_FRAMES)."""


def frame_count(options: FrameOptions, frames: int, film_rate: float, rate: float) -> int:
    """How many of `frames` frames of a film at `film_rate` are taken at `rate` frames a second. Raises AntiphonError where there are too few."""
    if options.nframes is not None:
        count = round(options.nframes / PAIR) * PAIR
    else:
        fewest = math.ceil((FEWEST if options.min_frames is None else options.min_frames) / PAIR) * PAIR
        most = math.floor((min(MOST, frames) if options.max_frames is None else options.max_frames) / PAIR) * PAIR
        count = math.floor(min(min(max(frames / film_rate * rate, fewest), most), frames) / PAIR) * PAIR
    if not PAIR <= count <= frames:
        raise InvalidInput(f"{count} frames are asked of a video that has {frames} in its span; give nframes or max_frames from {PAIR} to {frames}.")
    return count


def frame_range(span: Span, frames: int, film_rate: float) -> tuple[int, int]:
    """The first and last frame number within `span` of a film. Raises AntiphonError where it holds no two frames."""
    seconds = frames / film_rate
    first = math.ceil(min(span.start, seconds) * film_rate)
    last = frames - 1 if span.end is None else min(math.floor(min(span.end, seconds) * film_rate), frames - 1)
    if not span.is_whole and first >= last:
        raise InvalidInput(f"The video is {seconds:g} s long and has no two frames from video_start ({span.start:g} s) to its end; give a longer span.")
    return first, last


def frame_numbers(first: int, last: int, count: int) -> np.ndarray:
    """int64 [count]: frame numbers spread evenly from `first` to `last`, both included; torch.linspace(...).round().long() to the last bit."""
    step = (np.float32(last) - np.float32(first)) / np.float32(max(count - 1, 1))
    places = np.arange(count)
    upward = np.float32(first) + step * places.astype(np.float32)
    downward = np.float32(last) - step * (count - 1 - places).astype(np.float32)
    spread = np.where(places < count // 2, upward, downward) if count > 1 else np.array([first], np.float32)
    return np.rint(spread).astype(np.int64)
