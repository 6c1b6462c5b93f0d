"""Messages of the OpenAI chat shape, checked once and turned into typed parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import AntiphonError
from ..said import article, short
from .content_parts import Part, TextPart, parse_part, unicode_text

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, eq=False)
class Message:
    """One turn. `plain` tells that the content was a string, not a list of parts: chat templates may treat the two differently."""

    role: str
    parts: tuple[Part, ...]
    plain: bool


def parse_messages(messages: Any) -> tuple[Message, ...]:
    """Check `messages` and turn them into Message objects; media are not opened yet.

    Content parts: see content_parts. Raises AntiphonError that names the message and part by index.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise AntiphonError(f'messages is {article(type(messages).__name__)}; expected a list of {{"role": ..., "content": ...}} objects.')
    if not messages:
        raise AntiphonError("messages is empty; expected at least one message with a role and content.")
    return tuple(_message(message, f"messages[{index}]") for index, message in enumerate(messages))


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise AntiphonError(f'{where} is {article(type(message).__name__)}; expected an object with "role" and "content".')
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise AntiphonError(f"{where} has the role {short(role)}; expected one of {', '.join(ROLES)}.")
    if isinstance(content, str):
        return Message(role, (TextPart(unicode_text(content, f"{where}.content")),), plain=True)
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise AntiphonError(f"{where}.content is {article(type(content).__name__)}; expected text or a list of content parts.")
    if not content:
        raise AntiphonError(f"{where}.content is an empty list; expected text or at least one content part.")
    return Message(role, tuple(parse_part(part, f"{where}.content[{index}]") for index, part in enumerate(content)), plain=False)
