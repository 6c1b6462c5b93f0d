"""Rules for the media of messages: allowed sources and sizes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

from ...bundle.errors import AntiphonError, InvalidInput
from ...bundle.said import short
from .media_options import WHOLE, Span

GIB = 2**30


class TooLong(AntiphonError):
    """A recording that is longer than the policy allows."""


@dataclass(frozen=True, kw_only=True)
class MediaPolicy:
    """The rules of `antiphon.load(media=...)`; every limit is checked before the work that it bounds.

    `MediaPolicy()` is for a program whose user owns the machine: messages may name local files, and the
    limits refuse only sizes that real recordings and photographs do not have. `MediaPolicy.for_server()` is
    for messages of strangers. Both refuse web addresses. The model's context limits media, too. Raises
    AntiphonError for a limit that is not a positive number.
    """

    local_files: bool = True
    """Whether a path or a `file:` URL is opened. If not, only data is read, and no error tells whether a file
    exists.
    """
    max_file_bytes: int = 16 * GIB
    """Bytes of one file."""
    max_data_bytes: int = GIB
    """Bytes of one piece of media inside a message: base64 (after decoding), bytes, or an open file."""
    max_pixels: int = 2**27
    """Width times height of one image, or of one frame of a video."""
    max_frames: int = 500_000
    """Frames of one video that are decoded, whether or not the model gets them."""
    max_seconds: float = 86_400.0
    """Seconds of one recording or video. With a span, the seconds up to its end, since all of these are
    decoded.
    """
    max_parts: int = 10_000
    """Content parts of one call, media and texts together."""

    def __post_init__(self) -> None:
        if not isinstance(self.local_files, bool):
            raise InvalidInput(
                f"The media policy's local_files is {short(self.local_files)}, expected True or False."
            )
        for limit in fields(self)[1:]:
            _check_limit(limit.name, getattr(self, limit.name))

    @classmethod
    def for_server(cls, **limits: Any) -> MediaPolicy:
        """A policy for messages of strangers: data only, within lower limits. `limits` replace some of them.

        Raises AntiphonError for a name that is not a limit.
        """
        unknown = sorted(set(limits) - {limit.name for limit in fields(cls)})
        if unknown:
            raise InvalidInput(
                f"The media policy has no limit {short(unknown[0])}; "
                f"expected one of {', '.join(limit.name for limit in fields(cls))}."
            )
        return replace(SERVER, **limits)

    def check_data_bytes(self, size: int, kind: str, or_more: bool = False) -> None:
        """Raise AntiphonError for media data of more bytes than allowed.

        `kind` (audio, image, video) is used in the message. `or_more`: reading stopped at `size`.
        """
        if size > self.max_data_bytes:
            found = f"{size:,} bytes{' or more' if or_more else ''}"
            raise InvalidInput(
                f"The {kind} data has {found}, expected at most {self.max_data_bytes:,}; "
                "give less, or the path of a file where that is allowed."
            )

    def check_file_bytes(self, size: int, kind: str) -> None:
        """Raise AntiphonError for a file of more bytes than allowed."""
        if size > self.max_file_bytes:
            raise InvalidInput(
                f"The {kind} file has {size:,} bytes, expected at most {self.max_file_bytes:,}; "
                "give a smaller one."
            )

    def check_pixels(self, width: int, height: int, what: str) -> None:
        """Raise AntiphonError for a picture without pixels or with more than allowed. `what` begins the
        sentence, for example 'The image'.
        """
        if width < 1 or height < 1:
            raise InvalidInput(f"{what} is {width} x {height} pixels; give one with pixels.")
        if width * height > self.max_pixels:
            raise InvalidInput(
                f"{what} is {width} x {height} pixels, expected at most {self.max_pixels:,} in all; "
                "make it smaller."
            )

    def check_seconds(self, seconds: float, kind: str, span: Span = WHOLE) -> None:
        """Raise AntiphonError for a recording or video of more seconds than allowed. Seconds after the end of
        `span` are not read and not counted.
        """
        read = span.read(seconds)
        if not read <= self.max_seconds:  # NaN is refused, too
            is_what = (
                f"is {seconds:,.1f} s long"
                if read == seconds or span.end is None
                else f"is asked for up to {read:,.1f} s"
            )
            raise TooLong(
                f"The {kind} {is_what}, expected at most {self.max_seconds:,.1f} s (the policy's limit, "
                "or what the context holds); cut it."
            )

    def check_frames(self, frames: float, kind: str = "video") -> None:
        """Raise AntiphonError for more frames than allowed."""
        if not frames <= self.max_frames:
            raise InvalidInput(
                f"The {kind} has {frames:,.0f} frames or more, expected at most {self.max_frames:,}; "
                "cut it, or give it at a lower frame rate."
            )

    def check_parts(self, parts: int) -> None:
        """Raise AntiphonError for more content parts than allowed."""
        if parts > self.max_parts:
            raise InvalidInput(
                f"The messages have {parts:,} content parts, expected at most {self.max_parts:,}; "
                "leave some out or join texts."
            )


def _check_limit(name: str, value: Any) -> None:
    whole = name != "max_seconds"
    if isinstance(value, bool) or not isinstance(value, Integral if whole else Real) or not value > 0:  # type: ignore[operator]
        raise InvalidInput(
            f"The media policy's {name} is {short(value)}, "
            f"expected a positive {'whole ' if whole else ''}number."
        )


LOCAL = MediaPolicy()
SERVER = MediaPolicy(
    local_files=False,
    max_file_bytes=64 * 2**20,
    max_data_bytes=64 * 2**20,
    max_pixels=50_000_000,
    max_frames=36_000,
    max_seconds=3600.0,
    max_parts=1000,
)
"""The limits of `MediaPolicy.for_server()`: one hour of audio, a photograph of 50 megapixels, ten minutes of
video at 60 frames per second.
"""
