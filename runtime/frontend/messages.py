"""Messages of the OpenAI chat shape, checked once and turned into typed parts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ..errors import AntiphonError
from .tools import Tools, check_unicode, parse_tool_calls

ROLES = ("system", "user", "assistant", "tool")
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
ONLY_OF = {"tool_calls": "assistant", "tool_call_id": "tool", "reasoning_content": "assistant"}
"""Keys that one role alone has."""
REFUSED = {
    "audio": "refers to sound that another service keeps; send its words as content",
    "refusal": "has no place in a prompt; send its words as content",
    "function_call": "is the old form of tool_calls; send tool_calls",
    "annotations": "have no place in a prompt; leave them out",
}
"""Keys of the OpenAI API's answers, which clients send back; they may be there and empty."""
PART_TYPES = ("text", "input_audio", "image_url", "video_url", "audio", "image", "video")


@dataclass(frozen=True, eq=False)
class TextPart:
    """Text as it was typed."""

    text: str


@dataclass(frozen=True, eq=False)
class AudioPart:
    """A clip: `source` is base64, a data URL, a path, bytes or an array; `sample_rate` in Hz counts for arrays only."""

    source: Any
    sample_rate: int = 16000


@dataclass(frozen=True, eq=False)
class ImagePart:
    """An image: `source` is a data URL, base64, a path, bytes, a uint8 array [height, width, 3] or a PIL image."""

    source: Any


@dataclass(frozen=True, eq=False)
class VideoPart:
    """A video: `source` as for images, or a uint8 array [frames, height, width, 3] already sampled at `fps` (None: the prompt's rate).

    `use_audio` says whether the video's own audio track is heard (None: as the prompt says).
    """

    source: Any
    use_audio: bool | None = None
    fps: float | None = None


Part = TextPart | AudioPart | ImagePart | VideoPart


@dataclass(frozen=True, eq=False)
class Message:
    """One turn. `plain` tells that the content was a string, not a list of parts: chat templates may treat the two differently.

    The rest is handed to the chat template: the calls of an assistant and what it thought before its words, the call that a tool answers, a name.
    """

    role: str
    parts: tuple[Part, ...]
    plain: bool
    tool_calls: Tools = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None


def parse_messages(messages: Any) -> tuple[Message, ...]:
    """Check `messages` and turn them into Message objects; media are not opened yet.

    Content parts: the OpenAI shapes `text`, `input_audio`, `image_url`, `video_url`, and the Hugging Face shapes `audio`, `image`,
    `video`. Raises AntiphonError that names the message and part by index.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise AntiphonError(f'messages is a {type(messages).__name__}; expected a list of {{"role": ..., "content": ...}} objects.')
    if not messages:
        raise AntiphonError("messages is empty; expected at least one message with a role and content.")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise AntiphonError(f'{where} is a {type(message).__name__}; expected an object with "role" and "content".')
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        found = repr(role[:40]) if isinstance(role, str) else "None" if role is None else f"of type {type(role).__name__}"
        raise AntiphonError(f"{where} has the role {found}; expected one of {', '.join(ROLES)}.")
    extras = _extras(message, role, where)
    if content is None and extras.get("tool_calls"):
        return Message(role, (), plain=True, **extras)
    if isinstance(content, str):
        return Message(role, (TextPart(check_unicode(content, f"{where}.content")),), plain=True, **extras)
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise AntiphonError(f"{where}.content is a {type(content).__name__}; expected text or a list of content parts.")
    if not content:
        raise AntiphonError(f"{where}.content is an empty list; expected text or at least one content part.")
    parts = tuple(_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))
    if role == "tool" and not all(isinstance(part, TextPart) for part in parts):
        raise AntiphonError(f"{where}.content holds media; expected text of a tool, in a string or in text parts.")
    return Message(role, parts, plain=False, **extras)


def _extras(message: Mapping[str, Any], role: str, where: str) -> dict[str, Any]:
    """The fields of a Message beside its content; keys that are null are as absent."""
    extras: dict[str, Any] = {}
    for key, value in message.items():
        if value is None or key in ("role", "content"):
            continue
        if key in REFUSED:
            if isinstance(value, Sequence | Mapping) and not value:
                continue
            raise AntiphonError(f"{where}.{key} {REFUSED[key]}.")
        if key not in KEYS:
            name = repr(key[:40]) if isinstance(key, str) else f"that is a {type(key).__name__}"
            raise AntiphonError(f"{where} has the key {name}, which has no effect; expected only {', '.join(KEYS)}.")
        if ONLY_OF.get(key, role) != role:
            raise AntiphonError(f"{where}.{key} stands in a message of the role {role}; expected it in one of the role {ONLY_OF[key]} only.")
        if key == "tool_calls":
            extras[key] = parse_tool_calls(value, f"{where}.{key}")
        elif isinstance(value, str):
            extras[key] = check_unicode(value, f"{where}.{key}")
        else:
            raise AntiphonError(f"{where}.{key} is a {type(value).__name__}; expected text.")
    return extras


def _part(part: Any, where: str) -> Part:
    if not isinstance(part, Mapping):
        raise AntiphonError(f'{where} is a {type(part).__name__}; expected an object with a "type".')
    kind = part.get("type")
    if kind not in PART_TYPES:
        raise AntiphonError(f"{where} has the type {kind!r}; expected one of {', '.join(PART_TYPES)}.")
    if kind == "text":
        text = part.get("text")
        if not isinstance(text, str):
            raise AntiphonError(f"{where}.text is a {type(text).__name__}; expected text.")
        return TextPart(check_unicode(text, f"{where}.text"))
    source, options = _source(part, kind, where)
    if kind in ("input_audio", "audio"):
        return AudioPart(source, _sample_rate(options, where))
    if kind in ("image_url", "image"):
        return ImagePart(source)
    return VideoPart(source, _use_audio(options, where), _frames_per_second(options, where))


def _source(part: Mapping[str, Any], kind: str, where: str) -> tuple[Any, Mapping[str, Any]]:
    """The media itself and the object that holds its options: the nested object where there is one, else the part."""
    inner = part.get(kind)
    options, keys = (inner, ("data", "url")) if isinstance(inner, Mapping) else (part, (kind, "url", "path", "data"))
    for key in keys:
        source = options.get(key)
        if source is not None:
            return source, options
    expected = "data" if kind == "input_audio" else "url" if kind.endswith("_url") else kind
    raise AntiphonError(f"{where} of type {kind} holds no media; expected it under {expected!r} as a local path, base64 data or an array.")


def _sample_rate(options: Mapping[str, Any], where: str) -> int:
    return check_sample_rate(options.get("sample_rate", options.get("sampling_rate", 16000)), f"{where}: sample_rate")


def _use_audio(options: Mapping[str, Any], where: str) -> bool | None:
    use_audio = options.get("use_audio")
    if use_audio is not None and not isinstance(use_audio, bool):
        raise AntiphonError(f"{where}: use_audio is {use_audio!r}; expected true or false.")
    return use_audio


def _frames_per_second(options: Mapping[str, Any], where: str) -> float | None:
    rate = options.get("fps")
    return None if rate is None else check_frame_rate(rate, f"{where}: fps")


def check_sample_rate(rate: Any, name: str) -> int:
    """`rate` as an int; raises AntiphonError unless it is a positive whole number of samples a second."""
    if isinstance(rate, bool) or not isinstance(rate, Integral) or rate <= 0:
        raise AntiphonError(f"{name} is {rate!r}; expected a positive whole number of samples a second.")
    return int(rate)


def check_frame_rate(rate: Any, name: str) -> float:
    """`rate` as a float; raises AntiphonError unless it is a positive, finite number of frames a second."""
    if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 < rate <= sys.float_info.max:  # type: ignore[operator]
        raise AntiphonError(f"{name} is {rate!r}; expected a positive number of frames a second.")
    return float(rate)
