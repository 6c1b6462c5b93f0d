from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.prompt.tools import parse_tool_calls, parse_tools, texts, with_texts

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "of a city",
        "parameters": {"type": "object", "properties": {}},
    },
}
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


def call(arguments: Any) -> list[dict[str, Any]]:
    return [{"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}]


def test_tools_are_copied_as_they_are() -> None:
    (tool,) = parse_tools([TOOL])
    assert tool == TOOL and tool is not TOOL
    assert parse_tools(None) == parse_tools([]) == ()


@settings(max_examples=60, deadline=None)
@given(arguments=st.dictionaries(st.text(max_size=5), PLAIN, max_size=3))
def test_arguments_are_the_same_as_an_object_or_as_its_json(arguments: dict[str, Any]) -> None:
    (given_object,), (given_text,) = (
        parse_tool_calls(call(form), "calls") for form in (arguments, json.dumps(arguments))
    )
    assert given_object == given_text == call(arguments)[0]


@pytest.mark.parametrize("nothing", ["", "  ", None, {}])
def test_a_call_may_have_no_arguments(nothing: Any) -> None:
    (found,) = parse_tool_calls(call(nothing), "calls")
    assert found["function"]["arguments"] == {}


@settings(max_examples=60, deadline=None)
@given(value=PLAIN)
def test_every_text_is_reached_by_a_change(value: Any) -> None:
    assert list(texts(with_texts(value, lambda text: "x"))) == ["x" for _ in texts(value)] or isinstance(
        value, dict | list
    )
    assert with_texts(value, lambda text: text) == value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_a_python_function_is_no_tool() -> None:
    def weather(city: str) -> str:
        return city

    with pytest.raises(
        AntiphonError, match=r"^tools\[1\] is a Python function; give its JSON schema instead"
    ):
        parse_tools([TOOL, weather])


@pytest.mark.parametrize(
    ("tools", "sentence"),
    [
        ({"a": 1}, "tools is a dict; expected a list"),
        ("weather", "tools is a str; expected a list"),
        (["weather"], r"tools\[0\] is a str"),
        ([{"type": "file_search"}], r"tools\[0\] has the type 'file_search'; expected \"function\""),
        ([{"type": 3}], r"tools\[0\] has the type 3"),
        ([{"type": "function"}], r"tools\[0\] names no function"),
        ([{"type": "function", "function": {"name": ""}}], r"tools\[0\] names no function"),
        (
            [{"type": "function", "function": {"name": "f", "parameters": []}}],
            r"tools\[0\].function.parameters is a list",
        ),
        ([{**TOOL, "extra": object()}], r"tools\[0\].extra is an object; expected what JSON can say"),
        ([{**TOOL, "extra": {1: 2}}], r"tools\[0\].extra has a key that is no text"),
        ([{**TOOL, "extra": float("nan")}], r"tools\[0\].extra holds a number that is not finite"),
        ([{**TOOL, "extra": "\ud800"}], r"tools\[0\].extra is not valid Unicode"),
        ([{**TOOL, "extra": nested(60)}], "nested deeper than 40 levels"),
    ],
)
def test_bad_tools_raise_one_sentence_that_names_the_place(tools: Any, sentence: str) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        parse_tools(tools)


@pytest.mark.parametrize(
    ("calls", "sentence"),
    [
        ("f()", "calls is a str"),
        (["f()"], r"calls\[0\] is a str"),
        ([{"id": "1", "function": {}}], r"calls\[0\] names no function"),
        ([{"type": "custom", "function": {"name": "f"}}], r"calls\[0\] has the type 'custom'"),
        (call("{"), r"calls\[0\].function.arguments is text that is no JSON"),
        (call("[" * 100_000), r"calls\[0\].function.arguments is text that is no JSON"),
        (call("[1]"), r"calls\[0\].function.arguments is a list; expected a JSON object"),
        (call(3), r"calls\[0\].function.arguments is an int"),
        (call('{"a": Infinity}'), r"calls\[0\].function.arguments.a holds a number that is not finite"),
    ],
)
def test_bad_calls_raise_one_sentence_that_names_the_place(calls: Any, sentence: str) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        parse_tool_calls(calls, "calls")
