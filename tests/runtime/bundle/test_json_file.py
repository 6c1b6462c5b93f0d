"""Reading JSON objects from files of others: an object, or one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.json_file import DEEPEST, parse_json_object, read_json_object

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_parse_gives_back_what_was_written(value: dict[str, Any]) -> None:
    assert parse_json_object(json.dumps(value).encode(), "x.json") == value


@given(st.binary(max_size=200))
def test_parse_gives_an_object_or_one_sentence_for_any_bytes(content: bytes) -> None:
    try:
        assert isinstance(parse_json_object(content, "x.json"), dict)
    except AntiphonError as error:
        assert (
            str(error).startswith("x.json ")
            and str(error).endswith("; download the file again.")
            and len(str(error)) < 300
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": Infinity}', "Infinity is no finite number"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": -1e999}', "-1e999 is no finite number"),
        (b'{"a": ' + b"9" * 10000 + b"}", "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8 text (byte 7)"),
        (b"[" * 100_000, "nested deeper than 40 levels"),
        (b'{"a":' + b"[" * 60 + b"]" * 60 + b"}", "nested deeper than 40 levels"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"a": [' + b"[]," * 2**20 + b"1]}", "more lists, objects or values than any file of its kind"),
        (b'{"a": [' + b"1," * 2**22 + b"1]}", "more lists, objects or values than any file of its kind"),
        (b"[1]", "holds a list where an object was expected"),
    ],
)
def test_parse_says_what_is_wrong(content: bytes, said: str) -> None:
    with pytest.raises(AntiphonError) as caught:
        parse_json_object(content, "x.json")
    assert said in str(caught.value)


def test_parse_takes_the_deepest_that_is_allowed() -> None:
    assert parse_json_object(b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST, "x.json")


def test_parse_takes_a_character_of_two_escapes() -> None:
    assert parse_json_object(b'{"a": "\\ud83d\\ude00"}', "x.json") == {"a": "\U0001f600"}


def test_parse_takes_the_last_of_a_name_that_is_said_twice() -> None:
    assert parse_json_object(b'{"a": {"b": 1, "b": 2}}', "x.json") == {"a": {"b": 2}}


def test_read_refuses_a_file_that_is_too_large_without_reading_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"{}" + b" " * 1000)
    assert read_json_object(tmp_path / "x.json") == {}
    with pytest.raises(AntiphonError, match="more than 100 bytes"):
        read_json_object(tmp_path / "x.json", largest=100)


@pytest.mark.parametrize("name", ["missing.json", "n" * 5000])
def test_read_says_why_a_file_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(AntiphonError, match="cannot be read") as caught:
        read_json_object(tmp_path / name)
    assert len(str(caught.value)) < 500
