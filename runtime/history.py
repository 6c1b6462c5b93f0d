"""What was said in a conversation, for people and logs: roles, texts and kinds of media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .frontend.prompt.part_keys import MEDIA_TYPES, TEXT_TYPES, fields_of, type_of


@dataclass(frozen=True)
class HistoryMessage:
    """One turn.

    `text`: its text parts, joined. `media`: the kind of each of its other parts in
    order: audio, image or video.
    """

    role: str
    text: str
    media: tuple[str, ...] = ()


def summary(messages: Sequence[Mapping[str, Any]]) -> tuple[HistoryMessage, ...]:
    """`messages` of the chat shape, which the front end has accepted, without their media.

    Nothing is opened or read.
    """
    return tuple(_message(message) for message in messages)


def _message(message: Mapping[str, Any]) -> HistoryMessage:
    content = message.get("content")
    parts: Sequence[Any] = [content] if isinstance(content, str) else content or []
    texts: list[str] = []
    media: list[str] = []
    for part in parts:
        text = _text(part)
        if text is None:
            media.append(MEDIA_TYPES[type_of(part, "a part")])
        else:
            texts.append(text)
    return HistoryMessage(message["role"], "".join(texts), tuple(media))


def _text(part: Any) -> str | None:
    """The text of a part; None where it holds media."""
    if isinstance(part, str):
        return part
    kind = type_of(part, "a part")
    if kind in TEXT_TYPES:
        return str(part[TEXT_TYPES[kind]])
    source, options = fields_of(part, MEDIA_TYPES[kind], "a part")
    return options.get("transcript") if source is None else None
