"""Checks before a prompt is made: the number of parts, and whether text and media can fit into the model's
context, by their headers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...bundle.errors import ContextFull
from ..audio.audio_layout import audio_tokens
from ..audio.long_audio import header_seconds
from ..audio.mel import MelSettings
from ..media.media_options import WHOLE, Span
from ..media.media_policy import MediaPolicy
from ..media.media_source import resolve_source
from ..vision.image import image_size
from ..vision.picture_size import VisionSettings, fewest_tokens, image_sizes, merged_tokens
from .content_parts import AudioPart, ImagePart, TextPart, VideoPart
from .messages import Message
from .text_limits import TextLimits
from .timestamps import AudioClock


def check_count(messages: Any, policy: MediaPolicy) -> None:
    """Raise AntiphonError for more content parts than `policy` allows. Messages of another shape are left to
    the parser.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        return
    policy.check_parts(len(messages))
    contents = (message.get("content") for message in messages if isinstance(message, Mapping))
    policy.check_parts(
        sum(
            len(content)
            for content in contents
            if isinstance(content, Sequence) and not isinstance(content, str | bytes)
        )
    )


class PromptLimits:
    """The limits of one bundle: `policy`, and a context of `context` tokens (None: any number)."""

    def __init__(
        self, policy: MediaPolicy, context: int | None, texts: TextLimits, mel: MelSettings, clock: AudioClock
    ) -> None:
        self.policy, self.texts, self._context, self._clock = policy, texts, context, clock
        self._frames_per_second = mel.sampling_rate / mel.hop_length
        self._most_seconds = policy.max_seconds
        if context is not None:
            chunk = 2 * clock.n_window
            self._most_seconds = (
                (context // audio_tokens(chunk, clock.n_window, clock.convolutions) + 1)
                * chunk
                / self._frames_per_second
            )

    def sound_policy(self, span: Span = WHOLE) -> MediaPolicy:
        """`policy` with `max_seconds` lowered to the end of what the context can hold of `span`. Seconds
        before `span` are decoded but not used, so they are added.
        """
        return replace(self.policy, max_seconds=min(self.policy.max_seconds, span.start + self._most_seconds))

    def check_messages(self, messages: Sequence[Message]) -> None:
        """Raise AntiphonError for texts that do not fit into the context."""
        self.texts.check(
            [part.text for message in messages for part in message.parts if isinstance(part, TextPart)]
        )

    def room_for_videos(
        self, messages: Sequence[Message], images: VisionSettings, videos: VisionSettings
    ) -> int | None:
        """Tokens left in the context after clips, images and one temporal patch of each video; None: any
        number.

        Reads only the headers of the media. Raises AntiphonError if they do not fit, and for media whose
        header is refused.
        """
        needed = 0
        for part in (part for message in messages for part in message.parts):
            if isinstance(part, AudioPart):
                needed += self._sound_tokens(part)
            elif isinstance(part, ImagePart):
                width, height = image_size(part.source, self.policy)
                needed += merged_tokens(image_sizes((height, width), part.pixels, images)[-1], images)
            elif isinstance(part, VideoPart):
                needed += fewest_tokens(videos)
            if self._context is not None and needed > self._context:
                raise ContextFull(
                    f"The media need {needed:,} tokens or more, the model's context holds {self._context}; "
                    "leave some out or shorten them."
                )
        return None if self._context is None else self._context - needed

    def _sound_tokens(self, part: AudioPart) -> int:
        """The fewest tokens of a clip, by its header. Resampling and framing may give slightly fewer frames
        than its seconds.
        """
        source = (
            part.source
            if isinstance(part.source, np.ndarray)
            else resolve_source(part.source, "audio", self.policy)
        )
        seconds = header_seconds(source, part.sample_rate, self.sound_policy(part.span), part.span)
        return audio_tokens(
            max(1, int(seconds * self._frames_per_second) - 2), self._clock.n_window, self._clock.convolutions
        )
