"""Videos to frames and, where asked, their own audio track.

Source: Qwen2VLVideoProcessor (transformers 5.23) for resizing; frames are taken by their time stamps, so that variable
frame rates keep time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AntiphonError
from .audio import describe, read_audio_track, to_mono
from .av_container import decoded, open_container
from .frame_store import FrameStore
from .image import VisionSettings, load_image, merged_tokens, resized, target_size
from .long_audio import LONGEST_IN_MEMORY
from .media_policy import LOCAL, MediaPolicy, TooLong
from .media_source import resolve_source
from .messages import VideoPart

MOST_FRAMES = 768
"""Longer videos are sampled more sparsely, down to this many frames (`max_frames` of the reference)."""

CHECKED_EVERY = 64
"""Frames between two looks at what the context has left."""

MICROSECONDS = 1_000_000
"""A second in the units of a container's duration."""

TIME_TOLERANCE = 1e-3
"""Seconds: a frame whose time stamp was rounded up by the container still counts as shown at its time."""


@dataclass(frozen=True, eq=False)
class Video:
    """One video: its resized frames and how many there are a second; `audio` float32 [samples] of its own track, the file itself where that is
    too long to be read at once, or None where the video is silent or not to be heard."""

    frames: FrameStore
    rate: float
    audio: np.ndarray | Path | bytes | None


def read_video(
    part: VideoPart,
    settings: VisionSettings,
    frames_per_second: float,
    use_audio: bool,
    audio_rate: int,
    policy: MediaPolicy = LOCAL,
    most_tokens: int | None = None,
) -> Video:
    """Decode, sample and resize the video in `part`.

    A file is sampled at `frames_per_second`; an array's frames are all used, as if taken at `part.fps` (else `frames_per_second`).
    With `use_audio` the file's audio track is read at `audio_rate` Hz. `most_tokens`: what the context has left for the video (None: any number).
    Raises AntiphonError.
    """
    if isinstance(part.source, np.ndarray):
        if part.use_audio:
            raise AntiphonError("A video given as an array has no audio track; give the file, or the audio as its own part.")
        frames, rate, audio = FrameStore(_array_frames(part.source, settings, policy, most_tokens)), part.fps or frames_per_second, None
    else:
        source = resolve_source(part.source, "video", policy)
        frames, rate = decode_frames(source, frames_per_second, settings, policy, most_tokens)
        audio = _own_audio(source, audio_rate, policy) if use_audio else None
    return Video(frames, rate, audio)


def _own_audio(source: Path | bytes, audio_rate: int, policy: MediaPolicy) -> np.ndarray | Path | bytes | None:
    """The audio of a video that was decoded before."""
    with open_container(source, "video", policy, describe(source)) as container:
        if not container.streams.audio:
            return None
        if (container.duration or 0) > LONGEST_IN_MEMORY * MICROSECONDS:
            return source
    try:
        track = read_audio_track(source, replace(policy, max_seconds=min(policy.max_seconds, 2 * LONGEST_IN_MEMORY)))
    except TooLong:  # the container said less, or nothing
        return source
    return None if track is None or len(track[0]) == 0 else to_mono(*track, audio_rate)


def _array_frames(frames: np.ndarray, settings: VisionSettings, policy: MediaPolicy, most_tokens: int | None) -> Iterator[np.ndarray]:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or frames.size == 0:
        raise AntiphonError(f"The video array is {frames.dtype} {list(frames.shape)}; expected uint8 [frames, height, width, 3].")
    policy.check_frames(len(frames))
    policy.check_pixels(frames.shape[2], frames.shape[1], "The video")
    _check_room(len(frames), frames.shape[2], frames.shape[1], settings, most_tokens)
    size = target_size(load_image(frames[0]), settings)
    return (resized(load_image(frame), size, settings) for frame in frames)


def decode_frames(
    source: Path | bytes, frames_per_second: float, settings: VisionSettings, policy: MediaPolicy = LOCAL, most_tokens: int | None = None
) -> tuple[FrameStore, float]:
    """The frames shown at the times 0, 1/rate, 2/rate ... of a file, resized to uint8 [height, width, 3], and that rate.

    The rate is `frames_per_second`, raised for videos too short to fill a temporal patch and lowered for those that would give more
    than MOST_FRAMES. `policy` and `most_tokens` bound what the header says before anything is decoded, and what is decoded besides: headers err.
    Raises AntiphonError for what is no video.
    """
    label = describe(source)
    with open_container(source, "video", policy, label) as container:
        if not container.streams.video:
            raise AntiphonError(f"{label} holds no video track; give a video file.")
        import av

        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        width, height = stream.codec_context.width, stream.codec_context.height
        if not width or not height:
            raise AntiphonError(f"{label} has frames of a size that cannot be read, or of more than {policy.max_pixels:,} pixels; give a smaller video.")
        policy.check_pixels(width, height, "The video")
        seconds = _duration(container, stream, av.time_base)
        policy.check_seconds(seconds or 0.0, "video")
        policy.check_frames(max(stream.frames or 0, (seconds or 0.0) * float(stream.average_rate or 0)))
        rate = _sampling_rate(seconds, frames_per_second, settings.temporal_patch_size)
        _check_room((seconds or 0.0) * rate, width, height, settings, most_tokens)
        frame_seconds = float(1 / stream.average_rate) if stream.average_rate else 0.0
        shown = frames_shown(_bounded(decoded(container, stream, policy, label), policy), rate, frame_seconds)
        frames = FrameStore(_resized_frames(shown, settings, policy, most_tokens))
    if not len(frames):
        raise AntiphonError(f"The video {label} has no frames; give a video that is longer than 0 seconds.")
    return frames, rate


def _check_room(frames: float, width: int, height: int, settings: VisionSettings, most_tokens: int | None) -> None:
    """Raise AntiphonError where so many frames of a size make more tokens than the context has left; the last temporal patch is not counted."""
    tokens = int(frames) // settings.temporal_patch_size * merged_tokens(width, height, settings)
    if most_tokens is not None and tokens > most_tokens:
        raise AntiphonError(f"The video has {tokens:,} tokens or more, the model's context has room for {max(most_tokens, 0):,}; cut it or lower video_fps.")


def _bounded(frames: Iterable[Any], policy: MediaPolicy) -> Iterator[Any]:
    """The same frames, up to the limits of `policy`."""
    for number, frame in enumerate(frames, 1):
        policy.check_frames(number)
        policy.check_pixels(frame.width, frame.height, "The video")
        yield frame


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


def _resized_frames(frames: Iterable[Any], settings: VisionSettings, policy: MediaPolicy, most_tokens: int | None) -> Iterator[np.ndarray]:
    """Each frame upright (by its display matrix) and resized at once, so that full-size frames are never kept; a repeated frame is one object."""
    previous, kept, size = None, None, None
    for number, frame in enumerate(frames):
        if kept is None or frame is not previous:
            image = frame.to_image()
            if frame.rotation:
                image = image.rotate(frame.rotation, expand=True)
            size = size or target_size(image, settings)
            previous, kept = frame, resized(image, size, settings)
        if number % CHECKED_EVERY == 0:  # time stamps may say that a frame is shown for years
            policy.check_frames(number)
            _check_room(number, frame.width, frame.height, settings, most_tokens)
        yield kept
