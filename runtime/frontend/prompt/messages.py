"""Parse messages of the OpenAI chat shape: check them once and return typed parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...bundle.errors import InvalidInput
from ...bundle.said import article, short
from ..media.media_policy import LOCAL, MediaPolicy
from .content_parts import Part, TextPart, parse_part
from .tools import Tools, check_unicode, parse_tool_calls

ROLES = ("system", "user", "assistant", "tool")
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
ONLY_OF = {"tool_calls": "assistant", "tool_call_id": "tool", "reasoning_content": "assistant"}
"""Keys that only one role may have."""
REFUSED = {
    "audio": "refers to sound that another service keeps; send its words as content",
    "refusal": "has no place in a prompt; send its words as content",
    "function_call": "is the old form of tool_calls; send tool_calls",
    "annotations": "have no place in a prompt; leave them out",
}
"""Keys of the OpenAI API's answers that clients send back. They are refused unless they are empty."""


@dataclass(frozen=True, eq=False)
class Message:
    """One turn. `plain`: the content was a string, not a list of parts; chat templates may treat the two
    differently.

    The other fields go to the chat template: an assistant's tool calls and reasoning, the id of the call that
    a tool answers, and a name.
    """

    role: str
    parts: tuple[Part, ...]
    plain: bool
    tool_calls: Tools = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None


def parse_messages(messages: Any, policy: MediaPolicy = LOCAL) -> tuple[Message, ...]:
    """Check `messages` and return Message objects. Paths are not opened yet.

    content_parts describes the parts and the limits of `policy` that apply here. Raises AntiphonError that
    names the message and the part by index.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, (str, bytes)):
        raise InvalidInput(
            f'messages is {article(type(messages).__name__)}; expected a list of {{"role": '
            f'..., "content": ...}} objects.'
        )
    if not messages:
        raise InvalidInput("messages is empty; expected at least one message with a role and content.")
    return tuple(_message(message, f"messages[{index}]", policy) for index, message in enumerate(messages))


def _message(message: Any, where: str, policy: MediaPolicy) -> Message:
    if not isinstance(message, Mapping):
        raise InvalidInput(
            f'{where} is {article(type(message).__name__)}; expected an object with "role" and "content".'
        )
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidInput(f"{where} has the role {short(role)}; expected one of {', '.join(ROLES)}.")
    extras = _extras(message, role, where)
    if content is None and extras.get("tool_calls"):
        return Message(role, (), plain=True, **extras)
    if isinstance(content, str):
        return Message(role, (TextPart(check_unicode(content, f"{where}.content")),), plain=True, **extras)
    if not isinstance(content, Sequence) or isinstance(content, (bytes, bytearray)):
        raise InvalidInput(
            f"{where}.content is {article(type(content).__name__)}; expected text or a list of content parts."
        )
    if not content:
        raise InvalidInput(f"{where}.content is an empty list; expected text or at least one content part.")
    parts = tuple(parse_part(part, f"{where}.content[{index}]", policy) for index, part in enumerate(content))
    if role == "tool" and not all(isinstance(part, TextPart) for part in parts):
        raise InvalidInput(
            f"{where}.content holds media; expected text of a tool, in a string or in text parts."
        )
    return Message(role, parts, plain=False, **extras)


def _extras(message: Mapping[str, Any], role: str, where: str) -> dict[str, Any]:
    """The fields of a Message other than its role and content. A key that is null counts as absent."""
    extras: dict[str, Any] = {}
    for key, value in message.items():
        if value is None or key in ("role", "content"):
            continue
        if key in REFUSED:
            if isinstance(value, Sequence | Mapping) and not value:
                continue
            raise InvalidInput(f"{where}.{key} {REFUSED[key]}.")
        if key not in KEYS:
            raise InvalidInput(
                f"{where} has the key {short(key)}, which has no effect; expected only {', '.join(KEYS)}."
            )
        if ONLY_OF.get(key, role) != role:
            raise InvalidInput(
                f"{where}.{key} stands in a message of the role {role}; "
                f"expected it in one of the role {ONLY_OF[key]} only."
            )
        if key == "tool_calls":
            extras[key] = parse_tool_calls(value, f"{where}.{key}")
        elif isinstance(value, str):
            extras[key] = check_unicode(value, f"{where}.{key}")
        else:
            raise InvalidInput(f"{where}.{key} is {article(type(value).__name__)}; expected text.")
    return extras
