"""Parse the content parts of messages: check every shape that today's clients send, and return typed
parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle.errors import InvalidInput
from ...bundle.numeric import is_whole
from ...bundle.said import article
from ..audio.raw_audio import RAW_FORMATS, raw_format, raw_samples, realtime_audio
from ..media.file_objects import is_file_object, read_file_object
from ..media.media_options import (
    AS_THE_BUNDLE,
    BY_RATE,
    WHOLE,
    FrameOptions,
    PixelOptions,
    Span,
    check_frame_rate,
    check_sample_rate,
    read_frames,
    read_pixels,
    read_span,
    read_switch,
)
from ..media.media_policy import LOCAL, MediaPolicy
from .part_keys import MEDIA_TYPES, TEXT_TYPES, check_keys, fields_of, lacking, type_of
from .part_keys import OPTIONS as OPTIONS_OF
from .tools import check_unicode

ARRAY_RATE = 16000
"""Default sample rate of an array in Hz."""


@dataclass(frozen=True, eq=False)
class TextPart:
    """Text as the user typed it."""

    text: str


@dataclass(frozen=True, eq=False)
class AudioPart:
    """A clip. `source` is base64, a data URL, a path, bytes, a binary file or an array. `sample_rate` in Hz
    is used for arrays only.
    """

    source: Any
    sample_rate: int = ARRAY_RATE
    span: Span = WHOLE


@dataclass(frozen=True, eq=False)
class ImagePart:
    """An image. `source` is a data URL, base64, a path, bytes, a binary file, an array [height, width, 3]
    (see pixels) or a PIL image.
    """

    source: Any
    pixels: PixelOptions = AS_THE_BUNDLE


@dataclass(frozen=True, eq=False)
class VideoPart:
    """A video. `source` is as for images, or frames sampled at `fps`: an array [frames, height, width, 3] or
    a list of images.

    For a file, `fps` is the rate at which to sample it (None: the prompt's rate). `use_audio`: whether the
    video's audio track is used (None: the prompt's choice). `count`, `pixels` and `span`: see media_options.
    """

    source: Any
    use_audio: bool | None = None
    fps: float | None = None
    count: FrameOptions = BY_RATE
    pixels: PixelOptions = AS_THE_BUNDLE
    span: Span = WHOLE


Part = TextPart | AudioPart | ImagePart | VideoPart


def parse_part(part: Any, where: str, policy: MediaPolicy = LOCAL) -> Part:
    """Parse one content part; `where` is its name in errors.

    Paths are not opened yet. Raw samples are decoded and open files are read, within the limits of `policy`.
    Takes the shapes of OpenAI (chat, Responses, Realtime), of vLLM and of Hugging Face; a string is text.
    Raises AntiphonError for any other shape, for unknown keys and for options out of range.
    """
    if isinstance(part, str):
        return TextPart(check_unicode(part, where))
    if not isinstance(part, Mapping):
        raise InvalidInput(f'{where} is {article(type(part).__name__)}; expected an object with a "type".')
    kind = type_of(part, where)
    if kind in TEXT_TYPES:
        key = TEXT_TYPES[kind]
        check_keys(part, (key, *OPTIONS_OF["text"]), where)
        return TextPart(_text(part.get(key), f"{where}.{key}"))
    media = MEDIA_TYPES[kind]
    source, options = fields_of(part, media, where)
    # an earlier spoken turn of which only the transcript was kept
    if source is None and options.get("transcript") is not None:
        return TextPart(_text(options["transcript"], f"{where}.transcript"))
    if source is None:
        raise lacking(kind, where)
    if is_file_object(source):  # read only once, since the body of an upload cannot seek
        source = read_file_object(source, media, policy)
    if media == "audio":
        return _audio(
            source,
            options,
            where,
            policy,
            is_realtime=kind == "input_audio" and part.get("audio") is not None,
        )
    if media == "image":
        return ImagePart(source, read_pixels(options, where))
    return _video(source, options, where)


def _text(text: Any, where: str) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"{where} is {article(type(text).__name__)}; expected text.")
    return check_unicode(text, where)


def _audio(
    source: Any, options: Mapping[str, Any], where: str, policy: MediaPolicy, is_realtime: bool
) -> AudioPart:
    span = read_span(options, "audio", where)
    rates = [name for name in ("sample_rate", "sampling_rate") if name in options]
    if len(rates) > 1:
        raise InvalidInput(f"{where} has both sample_rate and sampling_rate; give it once.")
    rate = check_sample_rate(options[rates[0]], f"{where}: {rates[0]}") if rates else None
    # an array and its rate, in either order, as audio libraries return them
    if isinstance(source, tuple) and len(source) == 2:
        array, own = source if isinstance(source[0], np.ndarray) else source[::-1]
        if isinstance(array, np.ndarray) and is_whole(own):
            if rate is not None:
                raise InvalidInput(
                    f"{where} has a sample rate both in its pair and as {rates[0]}; give it once."
                )
            source, rate = array, check_sample_rate(own, f"{where}: the rate of the pair")
    coding = raw_format(options.get("format"), where)
    if coding is not None and not isinstance(source, np.ndarray):
        return AudioPart(raw_samples(source, coding, where, policy), rate or RAW_FORMATS[coding], span)
    if is_realtime and coding is None:
        found = realtime_audio(source, where, policy)
        if isinstance(found, np.ndarray):
            return AudioPart(found, rate or RAW_FORMATS["pcm16"], span)
    return AudioPart(source, rate or ARRAY_RATE, span)


def _video(source: Any, options: Mapping[str, Any], where: str) -> VideoPart:
    if isinstance(source, list | tuple) and not source:
        raise InvalidInput(f"{where} is a video without frames; give one image at least.")
    is_frames = isinstance(source, np.ndarray | list | tuple)
    rates = [name for name in ("fps", "sample_fps") if name in options]
    if len(rates) > 1:
        raise InvalidInput(f"{where} has both fps and sample_fps; give fps alone.")
    if not is_frames and rates == ["sample_fps"]:
        raise InvalidInput(f"{where}: sample_fps is the rate of frames given as a list; give fps for a file.")
    switches = [name for name in ("use_audio", "use_audio_in_video") if name in options]
    if len(switches) > 1:
        raise InvalidInput(f"{where} has both use_audio and use_audio_in_video; give it once.")
    use_audio = read_switch(options[switches[0]], f"{where}: {switches[0]}") if switches else None
    count, span = read_frames(options, where), read_span(options, "video", where)
    if is_frames and (count != BY_RATE or span != WHOLE):
        name = next(
            name
            for name in ("nframes", "min_frames", "max_frames", "video_start", "video_end")
            if options.get(name) is not None
        )
        raise InvalidInput(
            f"{where}: {name} is for video files; of frames given as an array or a list all are used, "
            "so give those that are meant."
        )
    fps = check_frame_rate(options[rates[0]], f"{where}: {rates[0]}") if rates else None
    return VideoPart(source, use_audio, fps, count, read_pixels(options, where), span)
