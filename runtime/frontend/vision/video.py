"""Read videos as frames and, if asked, their audio tracks.

Source: Qwen2VLVideoProcessor (transformers 5.23) for resizing. Frames are chosen by their time stamps, so
that a variable frame rate does not change the timing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...bundle.errors import InvalidInput
from ..audio.long_audio import LONGEST_IN_MEMORY, in_memory
from ..audio.recording import describe, read_audio_track, to_mono
from ..media.av_container import decoded, open_container
from ..media.media_options import AS_THE_BUNDLE, BY_RATE, WHOLE, FrameOptions, PixelOptions, Span
from ..media.media_policy import LOCAL, MediaPolicy, TooLong
from ..media.media_source import resolve_source
from ..prompt.content_parts import VideoPart
from .frame_choice import frame_count, frame_numbers, frame_range
from .frame_store import FrameStore
from .image import load_image, resized
from .picture_size import VisionSettings, merged_tokens, video_sizes

MOST_FRAMES = 768
"""The most frames of a video. Longer videos are sampled more sparsely (`max_frames` of the reference)."""

CHECKED_EVERY = 64
"""Number of frames after which the room left in the context is checked again."""

MICROSECONDS = 1_000_000
"""Units of a container's duration in one second."""

TIME_TOLERANCE = 1e-3
"""Seconds. A container may round a time stamp up; within this tolerance the frame counts as shown in time."""


@dataclass(frozen=True, eq=False)
class Video:
    """One video: its resized frames and their number per second.

    `audio`: float32 [samples] of its own track, the file itself if the track is too long to read at once, or
    None if the video is silent or its audio is not used.
    """

    frames: FrameStore
    rate: float
    audio: np.ndarray | Path | bytes | None
    times: np.ndarray
    """float64 [frames]: the time of each frame in the video, in seconds."""


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

    A file is sampled at `part.fps` (else `frames_per_second`), or as `part.count` says. The frames of an
    array or a list are all used and count as taken at that rate. With `use_audio`, the file's audio track is
    read at `audio_rate` Hz. `most_tokens`: room for the video in the context in tokens (None: any number).
    Raises AntiphonError if the video cannot be read, `policy` forbids it, or it has too many tokens.
    """
    rate = frames_per_second if part.fps is None else part.fps
    if isinstance(part.source, np.ndarray | list | tuple):
        if part.use_audio:
            raise InvalidInput(
                "A video given as frames has no audio track; give the file, or the audio as its own part."
            )
        frames = FrameStore(_given_frames(part.source, part.pixels, settings, policy, most_tokens))
        return Video(frames, rate, None, np.arange(len(frames)) / rate)
    source = resolve_source(part.source, "video", policy)
    frames, rate, times = decode_frames(
        source, rate, settings, policy, most_tokens, part.count, part.pixels, part.span
    )
    return Video(
        frames, rate, _own_audio(source, audio_rate, policy, part.span) if use_audio else None, times
    )


def _own_audio(
    source: Path | bytes, audio_rate: int, policy: MediaPolicy, span: Span
) -> np.ndarray | Path | bytes | None:
    """The audio of a video whose frames are already decoded (see `Video`)."""
    with open_container(source, "video", policy, describe(source)) as container:
        if not container.streams.audio:
            return None
        if span.heard((container.duration or 0) / MICROSECONDS) > LONGEST_IN_MEMORY:
            return source
    try:
        track = read_audio_track(source, in_memory(policy, span), span)
    except TooLong:  # the container gave too short a length, or none
        return source
    return None if track is None or len(track[0]) == 0 else to_mono(*track, audio_rate)


def _given_frames(
    frames: np.ndarray | Sequence[Any],
    options: PixelOptions,
    settings: VisionSettings,
    policy: MediaPolicy,
    most_tokens: int | None,
) -> Iterator[np.ndarray]:
    """Yield the resized frames of an array [frames, height, width, 3] or of a list of images of one size."""
    if isinstance(frames, np.ndarray) and (frames.ndim != 4 or frames.size == 0):
        raise InvalidInput(
            f"The video array is {frames.dtype.name} {list(frames.shape)[:8]}; "
            "expected uint8 [frames, height, width, 3]."
        )
    policy.check_frames(len(frames))
    if isinstance(frames, np.ndarray):
        policy.check_pixels(frames.shape[2], frames.shape[1], "The video")
    shape, sizes = None, []
    for number, frame in enumerate(frames):
        image = load_image(frame, policy)
        if shape is None:
            shape = image.size
            sizes = video_sizes((image.height, image.width), len(frames), options, settings)
            _check_room(len(frames), sizes[-1], settings, most_tokens)
        if image.size != shape:
            raise InvalidInput(
                f"Frame {number} of the video is {image.width} x {image.height} pixels and the first "
                f"{shape[0]} x {shape[1]}; give frames of one size."
            )
        yield resized(image, sizes, settings)


def decode_frames(
    source: Path | bytes,
    frames_per_second: float,
    settings: VisionSettings,
    policy: MediaPolicy = LOCAL,
    most_tokens: int | None = None,
    count: FrameOptions = BY_RATE,
    pixels: PixelOptions = AS_THE_BUNDLE,
    span: Span = WHOLE,
) -> tuple[FrameStore, float, np.ndarray]:
    """The frames of `span` of a file, resized to uint8 [height, width, 3], their number per second, and their
    times in seconds.

    Without `count`, frames are taken at the times 0, 1/rate, 2/rate ... of the span. The rate is
    `frames_per_second`; it is raised for videos too short to fill a temporal patch, and lowered for videos
    that would give more than MOST_FRAMES. With `count`, frames are spread evenly (see frame_choice). `policy`
    and `most_tokens` limit the frames up to the end of `span`: first those that the header claims, then those
    that are decoded, since headers may be wrong. Raises AntiphonError if the file is not a video.
    """
    label = describe(source)
    with open_container(source, "video", policy, label) as container:
        if not container.streams.video:
            raise InvalidInput(f"{label} holds no video track; give a video file.")
        import av

        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        width, height = stream.codec_context.width, stream.codec_context.height
        if not width or not height:
            raise InvalidInput(
                f"{label} has frames of a size that cannot be read, "
                f"or of more than {policy.max_pixels:,} pixels; give a smaller video."
            )
        policy.check_pixels(width, height, "The video")
        film = _Film(
            _duration(container, stream, av.time_base), float(stream.average_rate or 0), stream.frames or 0
        )
        policy.check_seconds(film.seconds or 0.0, "video", span)
        policy.check_frames(film.frames_read(span))
        sampling = _sampling(film, frames_per_second, settings.temporal_patch_size, count, span, label)
        _check_room(
            sampling.frames,
            video_sizes((height, width), max(1, sampling.frames), pixels, settings)[-1],
            settings,
            most_tokens,
        )
        shown = frames_shown(
            _bounded(decoded(container, stream, policy, label), policy), sampling.places(), film.frame_seconds
        )
        frames = FrameStore(_resized_frames(shown, sampling.frames, pixels, settings, policy, most_tokens))
    if not len(frames):
        raise InvalidInput(f"The video {label} has no frames; give a video that is longer than 0 seconds.")
    return frames, sampling.rate, np.fromiter(itertools.islice(sampling.places(), len(frames)), np.float64)


class _Film(NamedTuple):
    """What a file claims: seconds of the track, frames per second, number of frames; None or 0 if it does not
    say.
    """

    seconds: float | None
    rate: float
    frames: int

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame to the next."""
        return 1 / self.rate if self.rate else 0.0

    def frames_read(self, span: Span) -> float:
        """The number of frames to decode: from the first to the end of `span`, and one more, which ends the
        last.
        """
        frames = max(self.frames, (self.seconds or 0.0) * self.rate)
        return frames if span.end is None or not self.rate else min(frames, span.end * self.rate + 1)


class _Sampling(NamedTuple):
    """When frames are taken: `rate` per second, at `times` in seconds, or from 0 to the end if that is None.
    `frames`: about how many.
    """

    rate: float
    times: np.ndarray | None
    frames: int

    def places(self) -> Iterator[float]:
        """Yield the times in seconds at which a frame is taken, ascending; without end if `times` is None."""
        return (
            (number / self.rate for number in itertools.count())
            if self.times is None
            else iter(self.times.tolist())
        )


def _sampling(film: _Film, rate: float, fewest: int, count: FrameOptions, span: Span, name: str) -> _Sampling:
    """Return the sampling of a film: by time alone, or by `count` and `span`.

    Raises AntiphonError if `count` or `span` select frames and the file does not say how many it has.
    """
    if count == BY_RATE and span.is_whole:
        rate = _sampling_rate(film.seconds, rate, fewest)
        return _Sampling(rate, None, math.ceil((film.seconds or 0) * rate))
    total = film.frames or round((film.seconds or 0) * film.rate)
    if not total or not film.rate:
        raise InvalidInput(
            f"{name} does not say how many frames it has; leave out video_start, video_end, nframes, "
            "min_frames and max_frames."
        )
    first, last = frame_range(span, total, film.rate)
    seconds = (last - first + 1) / film.rate
    if count == BY_RATE:
        rate = _sampling_rate(seconds, rate, fewest)
        return _Sampling(
            rate,
            first / film.rate + np.arange(max(1, math.ceil((seconds - TIME_TOLERANCE) * rate))) / rate,
            math.ceil(seconds * rate),
        )
    chosen = frame_count(count, last - first + 1, film.rate, rate)
    return _Sampling(chosen / seconds, frame_numbers(first, last, chosen) / film.rate, chosen)


def _check_room(
    frames: int, size: tuple[int, int], settings: VisionSettings, most_tokens: int | None
) -> None:
    """Raise AntiphonError if `frames` frames of `size` make more tokens than the context has left. The last
    temporal patch is not counted.
    """
    tokens = frames // settings.temporal_patch_size * merged_tokens(size, settings)
    if most_tokens is not None and tokens > most_tokens:
        raise InvalidInput(
            f"The video has {tokens:,} tokens or more, the model's context has room for "
            f"{max(most_tokens, 0):,}; cut it or lower video_fps, nframes or max_pixels."
        )


def _bounded(frames: Iterable[Any], policy: MediaPolicy) -> Iterator[Any]:
    """Yield the same frames; raise AntiphonError beyond the limits of `policy`."""
    for number, frame in enumerate(frames, 1):
        policy.check_frames(number)
        policy.check_pixels(frame.width, frame.height, "The video")
        yield frame


def _duration(container: Any, stream: Any, time_base: int) -> float | None:
    """Seconds of the video track, else of the container, else None."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / time_base if container.duration else None


def _sampling_rate(seconds: float | None, frames_per_second: float, fewest: int) -> float:
    if not seconds or seconds <= 0:
        return frames_per_second
    return min(max(frames_per_second, fewest / seconds), MOST_FRAMES / seconds)


def frames_shown(frames: Iterable[Any], places: Iterator[float], frame_seconds: float) -> Iterator[Any]:
    """Yield the frame on screen at each of the ascending times `places`, by the frames' time stamps.

    `places` are in seconds from the first frame on. A frame without a time stamp starts `frame_seconds` after
    the frame before it. The last frame ends `frame_seconds` after its start. Each video shows at least one
    frame. Nothing after the last of `places` is decoded.
    """
    origin, shown, shown_at, taken = 0.0, None, 0.0, 0
    place = next(places, None)
    for frame in frames:
        if shown is None:
            origin = frame.time or 0.0
        else:
            time = shown_at + frame_seconds if frame.time is None else frame.time - origin
            while place is not None and place < time - TIME_TOLERANCE:
                yield shown
                taken, place = taken + 1, next(places, None)
            if place is None:
                return
            shown_at = time
        shown = frame
    while (
        shown is not None
        and place is not None
        and (taken == 0 or place < shown_at + frame_seconds - TIME_TOLERANCE)
    ):
        yield shown
        taken, place = taken + 1, next(places, None)


def _resized_frames(
    frames: Iterable[Any],
    about: int,
    options: PixelOptions,
    settings: VisionSettings,
    policy: MediaPolicy,
    most_tokens: int | None,
) -> Iterator[np.ndarray]:
    """Yield each frame, rotated upright (by its display matrix) and resized. A repeated frame is one object.

    Frames are resized at once, so that full-size frames are not kept. `about`: the expected number of frames.
    """
    previous, kept = None, None
    sizes: list[tuple[int, int]] = []
    for number, frame in enumerate(frames):
        if kept is None or frame is not previous:
            image = frame.to_image()
            if frame.rotation:
                image = image.rotate(frame.rotation, expand=True)
            sizes = sizes or video_sizes((image.height, image.width), max(1, about), options, settings)
            previous, kept = frame, resized(image, sizes, settings)
        if number % CHECKED_EVERY == 0:  # time stamps may say that a frame is shown for years
            policy.check_frames(number)
            _check_room(number, sizes[-1], settings, most_tokens)
        yield kept
