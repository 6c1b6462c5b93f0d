"""Options of one piece of media: the part that is read, the number of video frames, and the size of pictures.

Names and meanings are those of qwen-omni-utils 0.0.9 (process_audio_info, fetch_image, fetch_video); those of
qwen-vl-utils 0.0.14 are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle.errors import InvalidInput
from ...bundle.numeric import number, whole
from ...bundle.said import short

LONGEST = 1e6
"""The largest start or end in seconds: twelve days. A larger value is probably in another unit."""
FRAME_RATES = 1e-3, 1e3
SAMPLE_RATES = 1_000, 768_000
"""The smallest and the largest sample rate in Hz. Real recordings lie between; at 1 Hz, a few bytes would
last for hours.
"""
LOW_DETAIL = 512 * 512
"""The most pixels of an image whose `detail` is low, as in the OpenAI API. The values auto, high and original
keep the bundle's limits.
"""
DETAILS = ("auto", "low", "high", "original")


@dataclass(frozen=True)
class Span:
    """The seconds that are read: from `start` to `end`, or to the end of the recording if `end` is None."""

    start: float = 0.0
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the span is the whole recording."""
        return self.start == 0 and self.end is None

    def read(self, seconds: float) -> float:
        """The seconds that are decoded of a recording of `seconds`: from its beginning to the end of the
        span.
        """
        return seconds if self.end is None else min(seconds, self.end)

    def heard(self, seconds: float) -> float:
        """The seconds of a recording of `seconds` that lie in the span."""
        return max(0.0, self.read(seconds) - self.start)


@dataclass(frozen=True)
class PixelOptions:
    """Sizes of pictures; None is the reference's default. `total_pixels` is for all frames of a video
    together, the others are for one picture.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None


@dataclass(frozen=True)
class FrameOptions:
    """Number of frames taken from a video file: `nframes`, or the number by the frame rate within the
    limits.
    """

    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None


WHOLE = Span()
AS_THE_BUNDLE = PixelOptions()
BY_RATE = FrameOptions()


def read_span(options: Mapping[str, Any], kind: str, where: str) -> Span:
    """Read `KIND_start` and `KIND_end` in seconds.

    Raises AntiphonError for an invalid time, and if the end is not after the start.
    """
    start, end = options.get(f"{kind}_start"), options.get(f"{kind}_end")
    if start is None and end is None:
        return WHOLE
    begins = 0.0 if start is None else number(start, f"{where}: {kind}_start", 0, LONGEST, "seconds")
    ends = None if end is None else number(end, f"{where}: {kind}_end", 0, LONGEST, "seconds")
    if ends is not None and ends <= begins:
        raise InvalidInput(
            f"{where}: {kind}_end is {short(ends)}, expected a time after {kind}_start, "
            f"which is {short(begins)}."
        )
    return Span(begins, ends)


def read_pixels(options: Mapping[str, Any], where: str) -> PixelOptions:
    """Read the options of size.

    Raises AntiphonError for an invalid count, a minimum above the maximum, one side without the other, and
    options that exclude each other.
    """
    found = {
        name: whole(options[name], f"{where}: {name}", 1, of="pixels")
        for name in ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width")
        if options.get(name) is not None
    }
    if ("resized_height" in found) != ("resized_width" in found):
        given, lacking = (
            ("resized_height", "resized_width")
            if "resized_height" in found
            else ("resized_width", "resized_height")
        )
        raise InvalidInput(f"{where} has {given} without {lacking}; give both or none.")
    if found.get("min_pixels", 0) > found.get("max_pixels", 2**31):
        raise InvalidInput(
            f"{where}: min_pixels is {found['min_pixels']}, expected at most max_pixels, "
            f"which is {found['max_pixels']}."
        )
    if "resized_height" in found and len(found) > 2:
        other = next(name for name in found if name.endswith("_pixels"))
        raise InvalidInput(
            f"{where} has both resized_height and {other}, which has no effect beside it; leave one out."
        )
    detail = options.get("detail")
    if detail is not None and not (isinstance(detail, str) and detail in DETAILS):
        raise InvalidInput(f"{where}: detail is {short(detail)}, expected one of {', '.join(DETAILS)}.")
    if detail == "low":
        if found:
            raise InvalidInput(f"{where} has both detail and {next(iter(found))}; leave one out.")
        found["max_pixels"] = LOW_DETAIL
    return PixelOptions(**found)


def read_frames(options: Mapping[str, Any], where: str) -> FrameOptions:
    """Read the options of the number of frames.

    Raises AntiphonError for an invalid count, a minimum above the maximum, and options that exclude each
    other.
    """
    found = {
        name: whole(options[name], f"{where}: {name}", 2 if name == "nframes" else 1, of="frames")
        for name in ("nframes", "min_frames", "max_frames")
        if options.get(name) is not None
    }
    if "nframes" in found:
        for other in ("fps", "min_frames", "max_frames"):
            if options.get(other) is not None:
                raise InvalidInput(
                    f"{where} has both nframes and {other}, which has no effect beside it; leave one out."
                )
    if found.get("max_frames", 2) < 2:
        raise InvalidInput(f"{where}: max_frames is 1, expected at least 2: frames go in pairs.")
    if found.get("min_frames", 0) > found.get("max_frames", 2**31):
        raise InvalidInput(
            f"{where}: min_frames is {found['min_frames']}, expected at most max_frames, "
            f"which is {found['max_frames']}."
        )
    return FrameOptions(**found)


def check_sample_rate(rate: Any, name: str) -> int:
    """`rate` as an int. Raises AntiphonError unless it is a whole number of Hz within SAMPLE_RATES."""
    return whole(rate, name, *SAMPLE_RATES, of="samples a second")


def check_frame_rate(rate: Any, name: str) -> float:
    """`rate` as a float. Raises AntiphonError unless it is a number of frames per second within
    FRAME_RATES.
    """
    return number(rate, name, *FRAME_RATES, of="frames a second")


def read_switch(value: Any, name: str) -> bool | None:
    """`value` as a bool, or None if it is None. Raises AntiphonError for anything else."""
    if value is not None and not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{name} is {short(value)}; expected true or false.")
    return None if value is None else bool(value)
