"""Options of one piece of media: which of it is read, how many frames of a video, and how large its pictures become.

Names and meanings are those of qwen-omni-utils 0.0.9 (process_audio_info, fetch_image, fetch_video), which qwen-vl-utils 0.0.14 shares.
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
"""Seconds: twelve days. A start or an end beyond is a slip of the unit."""
FRAME_RATES = 1e-3, 1e3
SAMPLE_RATES = 1_000, 768_000
"""Samples a second: less is no speech, more no recording; a header of 1 Hz would make hours of a few bytes."""
LOW_DETAIL = 512 * 512
"""Pixels of an image asked for with `detail` low, as the OpenAI interface has it; auto, high and original leave the bundle's limits."""
DETAILS = ("auto", "low", "high", "original")


@dataclass(frozen=True)
class Span:
    """Which seconds are read: from `start` to `end`, None: to the end of the recording."""

    start: float = 0.0
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.start == 0 and self.end is None

    def read(self, seconds: float) -> float:
        """The seconds of a recording of so many that are decoded: from its beginning to the end of the span."""
        return seconds if self.end is None else min(seconds, self.end)

    def heard(self, seconds: float) -> float:
        """The seconds of a recording of so many that lie in the span."""
        return max(0.0, self.read(seconds) - self.start)


@dataclass(frozen=True)
class PixelOptions:
    """How large pictures become; None is the reference's own value. `total_pixels` counts all frames of a video, the rest one picture."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    resized_height: int | None = None
    resized_width: int | None = None


@dataclass(frozen=True)
class FrameOptions:
    """How many frames of a video file are taken: `nframes`, or as many as the rate gives within the limits."""

    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None


WHOLE = Span()
AS_THE_BUNDLE = PixelOptions()
BY_RATE = FrameOptions()


def read_span(options: Mapping[str, Any], kind: str, where: str) -> Span:
    """`KIND_start` and `KIND_end` in seconds. Raises AntiphonError for what is no time, and for an end that is not after the start."""
    start, end = options.get(f"{kind}_start"), options.get(f"{kind}_end")
    if start is None and end is None:
        return WHOLE
    begins = 0.0 if start is None else number(start, f"{where}: {kind}_start", 0, LONGEST, "seconds")
    ends = None if end is None else number(end, f"{where}: {kind}_end", 0, LONGEST, "seconds")
    if ends is not None and ends <= begins:
        raise InvalidInput(f"{where}: {kind}_end is {short(ends)}, expected a time after {kind}_start, which is {short(begins)}.")
    return Span(begins, ends)


def read_pixels(options: Mapping[str, Any], where: str) -> PixelOptions:
    """Options of size. Raises AntiphonError for what is no count, limits the wrong way round, one side without the other, or two ways at once."""
    found = {
        name: whole(options[name], f"{where}: {name}", 1, of="pixels")
        for name in ("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width")
        if options.get(name) is not None
    }
    if ("resized_height" in found) != ("resized_width" in found):
        given, lacking = ("resized_height", "resized_width") if "resized_height" in found else ("resized_width", "resized_height")
        raise InvalidInput(f"{where} has {given} without {lacking}; give both or none.")
    if found.get("min_pixels", 0) > found.get("max_pixels", 2**31):
        raise InvalidInput(f"{where}: min_pixels is {found['min_pixels']}, expected at most max_pixels, which is {found['max_pixels']}.")
    if "resized_height" in found and len(found) > 2:
        other = next(name for name in found if name.endswith("_pixels"))
        raise InvalidInput(f"{where} has both resized_height and {other}, which has no effect beside it; leave one out.")
    detail = options.get("detail")
    if detail is not None and not (isinstance(detail, str) and detail in DETAILS):
        raise InvalidInput(f"{where}: detail is {short(detail)}, expected one of {', '.join(DETAILS)}.")
    if detail == "low":
        if found:
            raise InvalidInput(f"{where} has both detail and {next(iter(found))}; leave one out.")
        found["max_pixels"] = LOW_DETAIL
    return PixelOptions(**found)


def read_frames(options: Mapping[str, Any], where: str) -> FrameOptions:
    """Options of the number of frames. Raises AntiphonError for what is no count, limits the wrong way round, or two ways at once."""
    found = {
        name: whole(options[name], f"{where}: {name}", 2 if name == "nframes" else 1, of="frames")
        for name in ("nframes", "min_frames", "max_frames")
        if options.get(name) is not None
    }
    if "nframes" in found:
        for other in ("fps", "min_frames", "max_frames"):
            if options.get(other) is not None:
                raise InvalidInput(f"{where} has both nframes and {other}, which has no effect beside it; leave one out.")
    if found.get("max_frames", 2) < 2:
        raise InvalidInput(f"{where}: max_frames is 1, expected at least 2: frames go in pairs.")
    if found.get("min_frames", 0) > found.get("max_frames", 2**31):
        raise InvalidInput(f"{where}: min_frames is {found['min_frames']}, expected at most max_frames, which is {found['max_frames']}.")
    return FrameOptions(**found)


def check_sample_rate(rate: Any, name: str) -> int:
    """`rate` as an int; raises AntiphonError unless it is a whole number of samples a second that sound is recorded at."""
    return whole(rate, name, *SAMPLE_RATES, of="samples a second")


def check_frame_rate(rate: Any, name: str) -> float:
    """`rate` as a float; raises AntiphonError unless it is a number of frames a second that something can be seen at."""
    return number(rate, name, *FRAME_RATES, of="frames a second")


def read_switch(value: Any, name: str) -> bool | None:
    """`value` as a bool, None where it is not given. Raises AntiphonError for anything else."""
    if value is not None and not isinstance(value, bool | np.bool_):
        raise InvalidInput(f"{name} is {short(value)}; expected true or false.")
    return None if value is None else bool(value)
