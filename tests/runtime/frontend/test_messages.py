from __future__ import annotations

from typing import Any

import pytest

from antiphon.runtime.errors import AntiphonError
from antiphon.runtime.frontend.content_parts import TextPart
from antiphon.runtime.frontend.messages import parse_messages


def test_text_content_is_one_plain_part() -> None:
    (message,) = parse_messages([{"role": "user", "content": "hi"}])
    assert message.role == "user" and message.plain and isinstance(message.parts[0], TextPart) and message.parts[0].text == "hi"


BAD = {
    "messages is a str": "hi",
    "messages is empty": [],
    r"messages\[0\] is a str": ["hi"],
    "role 'robot'": [{"role": "robot", "content": "x"}],
    "role None": [{"content": "x"}],
    "content is a NoneType": [{"role": "user"}],
    "content is an int": [{"role": "user", "content": 3}],
    "content is an empty list": [{"role": "user", "content": []}],
    r"messages\[1\].content\[0\] has the type 'smell'": [{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "smell"}]}],
    r"messages\[0\].content is not valid Unicode: character 3 is '\\udcff'": [{"role": "user", "content": "hi \udcff"}],
    r"content\[0\].text is not valid Unicode: character 0 is '\\ud83d'; send UTF-8": [{"role": "user", "content": [{"type": "text", "text": "\ud83d hi"}]}],
}


@pytest.mark.parametrize(("sentence", "messages"), BAD.items())
def test_bad_messages_raise_one_sentence_that_names_the_place(sentence: str, messages: Any) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        parse_messages(messages)
