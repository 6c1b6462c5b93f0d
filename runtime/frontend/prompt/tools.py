"""Check the tools that a model may call and the calls in its earlier answers, and convert them to plain data
for the chat template.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...bundle.errors import InvalidInput
from ...bundle.said import article, short

DEEPEST = 40
"""The most levels of nesting in a tool's schema or a call's arguments."""

Tools = tuple[dict[str, Any], ...]


def parse_tools(tools: Any) -> Tools:
    """Check and copy `tools`; () for None.

    The shape is that of OpenAI: `{"type": "function", "function": {"name", "description", "parameters"}}`.
    The schema in `parameters` goes to the chat template unchanged. Raises AntiphonError that names the tool
    by index.
    """
    if tools is None:
        return ()
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise InvalidInput(
            f"tools is {article(type(tools).__name__)}; "
            "expected a list of function tools as the OpenAI API takes them."
        )
    return tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools))


def _tool(tool: Any, where: str) -> dict[str, Any]:
    if callable(tool):
        raise InvalidInput(
            f'{where} is a Python function; give its JSON schema instead: {{"type": '
            f'"function", "function": {{...}}}}.'
        )
    if not isinstance(tool, Mapping):
        raise InvalidInput(
            f'{where} is {article(type(tool).__name__)}; expected an object with "type" and "function".'
        )
    plain: dict[str, Any] = plain_data(tool, where)
    function = _function(plain, where)
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidInput(
            f"{where}.function.parameters is {article(type(parameters).__name__)}; "
            "expected a JSON schema, which is an object."
        )
    return plain


def parse_tool_calls(calls: Any, where: str) -> Tools:
    """Check and copy the `tool_calls` of an assistant's message; () for None.

    `arguments` as a JSON string, as the OpenAI API sends them, become the object that chat templates expect.
    Raises AntiphonError that names the call by index.
    """
    if calls is None:
        return ()
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
        raise InvalidInput(
            f"{where} is {article(type(calls).__name__)}; "
            "expected a list of calls as the OpenAI API sends them."
        )
    return tuple(_call(call, f"{where}[{index}]") for index, call in enumerate(calls))


def _call(call: Any, where: str) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise InvalidInput(
            f'{where} is {article(type(call).__name__)}; expected an object with "id", "type" and "function".'
        )
    plain: dict[str, Any] = plain_data(call, where)
    function = _function({"type": "function", **plain}, where)
    function["arguments"] = _arguments(function.get("arguments"), f"{where}.function.arguments")
    return plain


def _function(tool: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The object under "function", which must have a name."""
    if tool.get("type") != "function":
        raise InvalidInput(
            f'{where} has the type {short(tool.get("type"))}; expected "function", the only type of tool.'
        )
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidInput(
            f'{where} names no function; expected it as {{"type": "function", "function": {{"name": ...}}}}.'
        )
    return function


def _arguments(arguments: Any, where: str) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = plain_data(json.loads(arguments), where) if arguments.strip() else {}
        except (ValueError, RecursionError):
            raise InvalidInput(
                f"{where} is text that is no JSON; expected a JSON object, as the model was to write it."
            ) from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise InvalidInput(
            f"{where} is {article(type(arguments).__name__)}; expected a JSON object, or one as text."
        )
    return arguments


def plain_data(value: Any, where: str, level: int = 0) -> Any:
    """A copy of `value` in Python's own JSON types.

    Raises AntiphonError for other types, keys that are not text, numbers that are not finite, text that is
    not valid Unicode, and more than DEEPEST levels.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_unicode(str(value), where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{where} holds a number that is not finite, which JSON has not.")
        return float(value)
    if level == DEEPEST:
        raise InvalidInput(f"{where} is nested deeper than {DEEPEST} levels.")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InvalidInput(f"{where} has a key that is no text; JSON has no others.")
        return {
            check_unicode(str(key), where): plain_data(item, f"{where[:160]}.{key[:40]}", level + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [plain_data(item, f"{where[:160]}[{index}]", level + 1) for index, item in enumerate(value)]
    raise InvalidInput(
        f"{where} is {article(type(value).__name__)}; expected what JSON can say: "
        "text, a number, true, false, null, a list or an object."
    )


def check_unicode(text: str, where: str) -> str:
    """`text` itself. Raises AntiphonError if it is not valid Unicode.

    Invalid text holds half of a surrogate pair, which is also Python's mark for a byte that is not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{where} is not valid Unicode: character {error.start} is {ascii(text[error.start])}; "
            "send UTF-8 text."
        ) from None
    return text


def texts(value: Any) -> Iterator[str]:
    """Yield every text in plain data, including keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value:
            yield from texts(item)
        if isinstance(value, dict):
            yield from texts(list(value.values()))


def with_texts(value: Any, change: Any) -> Any:
    """A copy of plain data with `change` applied to every text, including keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_texts(item, change) for item in value]
    return value
