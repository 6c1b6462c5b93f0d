from __future__ import annotations

from typing import Any

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.content_parts import TextPart
from antiphon.runtime.frontend.prompt.messages import parse_messages


def test_text_content_is_one_plain_part() -> None:
    (message,) = parse_messages([{"role": "user", "content": "hi"}])
    assert (
        message.role == "user"
        and message.plain
        and isinstance(message.parts[0], TextPart)
        and message.parts[0].text == "hi"
    )


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def test_an_assistant_may_call_tools_instead_of_speaking() -> None:
    for content in ({}, {"content": None}):
        (message,) = parse_messages([{"role": "assistant", **content, "tool_calls": [CALL]}])
        assert message.parts == () and message.plain
        assert message.tool_calls == (
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Rome"}},
            },
        )


def test_a_tool_answers_in_a_string_or_in_text_parts() -> None:
    for content in ("12", [{"type": "text", "text": "12"}]):
        (message,) = parse_messages(
            [{"role": "tool", "tool_call_id": "call_1", "name": "weather", "content": content}]
        )
        assert (message.role, message.tool_call_id, message.name) == ("tool", "call_1", "weather")
        assert isinstance(message.parts[0], TextPart) and message.parts[0].text == "12"


def test_keys_that_are_null_or_empty_are_as_absent() -> None:
    sent: dict[str, Any] = {
        "role": "assistant",
        "content": "Yes.",
        "refusal": None,
        "audio": None,
        "function_call": None,
        "annotations": [],
        "tool_calls": None,
        "name": None,
    }
    (message,) = parse_messages([sent])
    assert (message.tool_calls, message.name, message.reasoning_content) == ((), None, None)


BAD = {
    r"messages\[0\] has the key 'mood', which has no effect; expected only role, content, name": [
        {"role": "user", "content": "x", "mood": "good"}
    ],
    "has the key 3, which has no effect": [{"role": "user", "content": "x", 3: "good"}],
    r"messages\[0\].refusal has no place in a prompt": [
        {"role": "assistant", "content": "x", "refusal": "no"}
    ],
    r"messages\[0\].audio refers to sound": [{"role": "assistant", "content": "x", "audio": {"id": "a"}}],
    r"messages\[0\].function_call is the old form": [
        {"role": "assistant", "content": "x", "function_call": {"name": "f"}}
    ],
    r"messages\[0\].tool_calls stands in a message of the role user": [
        {"role": "user", "content": "x", "tool_calls": [CALL]}
    ],
    r"messages\[0\].tool_call_id stands in": [{"role": "assistant", "content": "x", "tool_call_id": "1"}],
    r"messages\[0\].reasoning_content stands in": [
        {"role": "user", "content": "x", "reasoning_content": "hm"}
    ],
    r"messages\[0\].name is an int; expected text": [{"role": "user", "content": "x", "name": 3}],
    r"messages\[0\].tool_calls is a dict": [{"role": "assistant", "tool_calls": CALL}],
    r"messages\[0\].content holds media": [
        {"role": "tool", "content": [{"type": "audio", "audio": b"RIFF"}]}
    ],
    r"messages\[0\].content is a NoneType": [{"role": "assistant", "tool_calls": []}],
    "messages is a str": "hi",
    "messages is empty": [],
    r"messages\[0\] is a str": ["hi"],
    "role 'robot'": [{"role": "robot", "content": "x"}],
    "role None": [{"content": "x"}],
    "role a list of 1; expected one of system, user, assistant, tool": [{"role": ["user"], "content": "x"}],
    "content is a NoneType": [{"role": "user"}],
    "content is an int": [{"role": "user", "content": 3}],
    "content is an empty list": [{"role": "user", "content": []}],
    r"messages\[1\].content\[0\] has the type 'smell'": [
        {"role": "user", "content": "x"},
        {"role": "user", "content": [{"type": "smell"}]},
    ],
    r"messages\[0\].content is not valid Unicode: character 3 is '\\udcff'": [
        {"role": "user", "content": "hi \udcff"}
    ],
    r"content\[0\].text is not valid Unicode: character 0 is '\\ud83d'; send UTF-8": [
        {"role": "user", "content": [{"type": "text", "text": "\ud83d hi"}]}
    ],
}


@pytest.mark.parametrize(("sentence", "messages"), BAD.items())
def test_bad_messages_raise_one_sentence_that_names_the_place(sentence: str, messages: Any) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        parse_messages(messages)
