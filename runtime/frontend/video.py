"""Videos to frames and, where asked, their own audio track.

Source: Qwen2VLVideoProcessor (transformers 5.23) for resizing; frames are taken by their time stamps, so that variable
frame rates keep time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AntiphonError, missing_extra
from .audio import describe, read_audio_track, to_mono
from .content_parts import VideoPart
from .frame_store import FrameStore
from .image import VisionSettings, load_image, resized, target_size
from .long_audio import is_long
from .media_source import resolve_source

MOST_FRAMES = 768
"""Longer videos are sampled more sparsely, down to this many frames (`max_frames` of the reference)."""

TIME_TOLERANCE = 1e-3
"""Seconds: a frame whose time stamp was rounded up by the container still counts as shown at its time."""


@dataclass(frozen=True, eq=False)
class Video:
    """One video: its resized frames and how many there are a second; `audio` float32 [samples] of its own track, the file itself where that is
    too long to be read at once, or None where the video is silent or not to be heard."""

    frames: FrameStore
    rate: float
    audio: np.ndarray | Path | bytes | None


def read_video(part: VideoPart, settings: VisionSettings, frames_per_second: float, use_audio: bool, audio_rate: int) -> Video:
    """Decode, sample and resize the video in `part`.

    A file is sampled at `frames_per_second`; an array's frames are all used, as if taken at `part.fps` (else `frames_per_second`).
    With `use_audio` the file's audio track is read at `audio_rate` Hz. Raises AntiphonError.
    """
    if isinstance(part.source, np.ndarray):
        if part.use_audio:
            raise AntiphonError("A video given as an array has no audio track; give the file, or the audio as its own part.")
        frames, rate, audio = FrameStore(_array_frames(part.source, settings)), part.fps or frames_per_second, None
    else:
        source = resolve_source(part.source, "video")
        frames, rate = decode_frames(source, frames_per_second, settings)
        audio = _own_audio(source, audio_rate) if use_audio else None
    return Video(frames, rate, audio)


def _own_audio(source: Path | bytes, audio_rate: int) -> np.ndarray | Path | bytes | None:
    """The audio of a video that was decoded before."""
    if not is_long(source, audio_rate):
        track = read_audio_track(source)
        return None if track is None or len(track[0]) == 0 else to_mono(*track, audio_rate)
    import av

    with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
        return source if container.streams.audio else None


def _array_frames(frames: np.ndarray, settings: VisionSettings) -> Iterator[np.ndarray]:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise AntiphonError(f"The video array is {frames.dtype} {list(frames.shape)}; expected uint8 [frames, height, width, 3].")
    size = target_size(load_image(frames[0]), settings)
    return (resized(load_image(frame), size, settings) for frame in frames)


def decode_frames(source: Path | bytes, frames_per_second: float, settings: VisionSettings) -> tuple[FrameStore, float]:
    """The frames shown at the times 0, 1/rate, 2/rate ... of a file, resized to uint8 [height, width, 3], and that rate.

    The rate is `frames_per_second`, raised for videos too short to fill a temporal patch and lowered for those that would give more
    than MOST_FRAMES. Raises AntiphonError for what is no video.
    """
    try:
        import av
    except ImportError:
        raise missing_extra("av", "media", f"Reading the video {describe(source)}") from None
    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), mode="r") as container:
            if not container.streams.video:
                raise AntiphonError(f"{describe(source)} holds no video track; give a video file.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = _sampling_rate(_duration(container, stream, av.time_base), frames_per_second, settings.temporal_patch_size)
            frame_seconds = float(1 / stream.average_rate) if stream.average_rate else 0.0
            frames = FrameStore(_resized_frames(frames_shown(container.decode(stream), rate, frame_seconds), settings))
    except (av.FFmpegError, ValueError) as error:
        raise AntiphonError(f"{describe(source)} cannot be read as video ({error}); give an MP4, MKV, WebM, MOV or AVI file.") from None
    if not len(frames):
        raise AntiphonError(f"The video {describe(source)} has no frames; give a video that is longer than 0 seconds.")
    return frames, rate


def _duration(container: Any, stream: Any, time_base: int) -> float | None:
    """Seconds of the video track, where the file says; some containers only know their own length."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / time_base if container.duration else None


def _sampling_rate(seconds: float | None, frames_per_second: float, fewest: int) -> float:
    if not seconds or seconds <= 0:
        return frames_per_second
    return min(max(frames_per_second, fewest / seconds), MOST_FRAMES / seconds)


def frames_shown(frames: Iterable[Any], rate: float, frame_seconds: float) -> Iterator[Any]:
    """The frame on screen at each of the times 0, 1/rate, 2/rate ... from the first frame on, by the frames' time stamps in seconds.

    A frame without a time stamp, and the end of the last one, come `frame_seconds` after the frame before; each video shows one frame at least.
    """
    origin, shown, shown_at, taken = 0.0, None, 0.0, 0
    for frame in frames:
        if shown is None:
            origin = frame.time or 0.0
        else:
            time = shown_at + frame_seconds if frame.time is None else frame.time - origin
            while taken / rate < time - TIME_TOLERANCE:
                yield shown
                taken += 1
            shown_at = time
        shown = frame
    while shown is not None and (taken == 0 or taken / rate < shown_at + frame_seconds - TIME_TOLERANCE):
        yield shown
        taken += 1


def _resized_frames(frames: Iterable[Any], settings: VisionSettings) -> Iterator[np.ndarray]:
    """Each frame upright (by its display matrix) and resized at once, so that full-size frames are never kept; a repeated frame is one object."""
    previous, kept, size = None, None, None
    for frame in frames:
        if kept is None or frame is not previous:
            image = frame.to_image()
            if frame.rotation:
                image = image.rotate(frame.rotation, expand=True)
            size = size or target_size(image, settings)
            previous, kept = frame, resized(image, size, settings)
        yield kept
