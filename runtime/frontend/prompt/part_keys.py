"""The allowed keys of content parts, and refused keys with reasons. No key of a part is ignored silently."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ...bundle.errors import InvalidInput
from ...bundle.said import short

TEXT_TYPES = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Types of text parts and the key that holds the text."""
MEDIA_TYPES = {
    "input_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
    "output_audio": "audio",
    "image_url": "image",
    "image": "image",
    "input_image": "image",
    "image_pil": "image",
    "video_url": "video",
    "video": "video",
}
"""Types of media parts and their kind of media."""
MEDIA_KEYS = {
    "audio": ("input_audio", "audio", "audio_url", "output_audio"),
    "image": ("image_url", "image", "input_image", "image_pil"),
    "video": ("video_url", "video"),
}
"""Keys of a part that hold its media, directly or in an object."""
SOURCE_KEYS = ("url", "path", "data", "base64", "bytes", "array")
"""Keys of that object, or of a part, that hold the media itself."""
OPTIONS = {
    "text": ("annotations", "logprobs"),
    "audio": ("sample_rate", "sampling_rate", "format", "audio_start", "audio_end", "transcript"),
    "image": ("detail", "min_pixels", "max_pixels", "resized_height", "resized_width"),
    "video": (
        "fps",
        "sample_fps",
        "nframes",
        "min_frames",
        "max_frames",
        "video_start",
        "video_end",
        "use_audio",
        "use_audio_in_video",
        "min_pixels",
        "max_pixels",
        "total_pixels",
        "resized_height",
        "resized_width",
    ),
}
HINTS = ("type", "uuid", "prompt_cache_breakpoint", "cache_control")
"""Keys that never change an answer: hints for a cache that this runtime does not have."""

REFUSED_TYPES = {
    "file": "send the sound, image or video itself as input_audio, image_url or video_url",
    "input_file": "send the sound, image or video itself as input_audio, image_url or video_url",
    "image_embeds": (
        "embeddings made elsewhere do not fit the encoders of a bundle; send the image as image_url"
    ),
    "audio_embeds": (
        "embeddings made elsewhere do not fit the encoders of a bundle; send the sound as input_audio"
    ),
    "video_embeds": (
        "embeddings made elsewhere do not fit the encoders of a bundle; send the video as video_url"
    ),
    "prompt_embeds": "embeddings made elsewhere do not fit a bundle; send text",
    "tool_use": "send tool calls beside the content of the message",
    "tool_result": "send a message of the role tool",
    "thinking": "the model's thoughts are no part of a conversation; leave them out",
    "reasoning": "the model's thoughts are no part of a conversation; leave them out",
}
"""Part types of other APIs, and what to do instead."""
REFUSED_KEYS = {
    "file_id": "files are not stored here; send the media itself",
    "mm_processor_kwargs": "put its options, such as min_pixels or fps, into the part",
    "media_io_kwargs": "put its options, such as nframes or fps, into the part",
    "raw_fps": "give the rate of the frames as fps",
    "source": 'put the media under "url" as base64 data, a data URL or a path',
    "video_metadata": "give the rate of the frames as fps",
    "do_resize": "give resized_height and resized_width",
    "do_sample_frames": "give nframes, or the frames as a list",
}
"""Keys of other APIs, and what to do instead."""


def type_of(part: Mapping[str, Any], where: str) -> str:
    """The type of a part. If it has none, its only key of text or media decides.

    Raises AntiphonError for a type that is not supported.
    """
    kind = part.get("type")
    if kind is None:
        named = [
            key
            for key in part
            if isinstance(key, str) and (key in TEXT_TYPES or key in MEDIA_TYPES) and part[key] is not None
        ]
        if len(named) == 1:
            return named[0]
    if isinstance(kind, str) and kind in REFUSED_TYPES:
        raise InvalidInput(f"{where} is of type {kind}, which is not taken: {REFUSED_TYPES[kind]}.")
    if not isinstance(kind, str) or kind not in TEXT_TYPES and kind not in MEDIA_TYPES:
        known = (*TEXT_TYPES, *MEDIA_TYPES)
        raise InvalidInput(
            f"{where} has the type {short(kind)}{_near(kind, known)}; expected one of {', '.join(known)}."
        )
    return kind


def check_keys(
    given: Mapping[str, Any], known: tuple[str, ...], where: str, optional: tuple[str, ...] = ()
) -> None:
    """Raise AntiphonError for the first key with a value that is neither in `known` nor a hint, and name a
    similar key.

    `optional`: the known keys that the error lists.
    """
    for key, value in given.items():
        if value is None or isinstance(key, str) and (key in known or key in HINTS):
            continue
        if isinstance(key, str) and key in REFUSED_KEYS:
            raise InvalidInput(f"{where} has the key {key}, which is not taken: {REFUSED_KEYS[key]}.")
        raise InvalidInput(
            f"{where} has the key {short(key)}, which is not known there{_near(key, known)}; "
            f"its options are {', '.join(optional) or 'none'}."
        )


def fields_of(part: Mapping[str, Any], media: str, where: str) -> tuple[Any, dict[str, Any]]:
    """The media of a part (None if there are none) and its options.

    Options may be in the part, or in the object that holds the media. A key without a value counts as absent.
    Raises AntiphonError for unknown keys, and for media or options that are given twice.
    """
    options = OPTIONS[media]
    check_keys(part, (*MEDIA_KEYS[media], *SOURCE_KEYS, *options), where, options)
    sources: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for key, value in part.items():
        if value is None or key in HINTS:
            continue
        if key in MEDIA_KEYS[media] and isinstance(value, Mapping):
            check_keys(value, (*SOURCE_KEYS, *options), f"{where}.{key}", options)
            inner = {name: item for name, item in value.items() if item is not None and name not in HINTS}
        else:
            inner = {key: value}
        for name, item in inner.items():
            target = found if name in options else sources
            if name in target:
                raise InvalidInput(f"{where} has {name} twice; give it once.")
            target[name] = item
    if "array" in sources:  # a row of a data set has its file's path, too
        sources.pop("path", None)
    if len(sources) > 1:
        raise InvalidInput(
            f"{where} holds its {media} twice, under {' and '.join(list(sources)[:2])}; give it once."
        )
    return next(iter(sources.values()), None), found


def lacking(kind: str, where: str) -> InvalidInput:
    """The error for a part of type `kind` without media."""
    expected = "data" if kind == "input_audio" else "url" if kind.endswith("_url") else kind
    return InvalidInput(
        f"{where} of type {kind} holds no media; expected it under {short(expected)} as a local path, "
        "base64 data or an array."
    )


def _near(key: Any, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key[:60], known, 1, 0.6) if isinstance(key, str) else []
    return f" (did you mean {near[0]}?)" if near else ""
