from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.said import LONGEST, reason, short, short_path


class Talkative:
    """A class whose own words must not get into a sentence."""

    def __repr__(self) -> str:
        raise AssertionError("a repr was asked for")

    __str__ = __repr__


class TalkativeList(list):
    __repr__ = __str__ = Talkative.__repr__


class TalkativeText(str):
    __repr__ = __str__ = Talkative.__repr__


SAID = [
    (None, "None"),
    (True, "True"),
    (np.bool_(False), "False"),
    (3, "3"),
    (np.int64(-3), "-3"),
    (2.5, "2.5"),
    (np.float32(0.1), "0.1"),
    (np.float64(0.1), "0.1"),
    (float("nan"), "nan"),
    (10**400, "an integer of 1,329 bits"),
    ("fast", "'fast'"),
    ("it's", '"it\'s"'),
    ("\ud83d\n", r"'\ud83d\n'"),
    (Path("a/b.wav"), "'a/b.wav'"),
    (b"abc", "3 bytes"),
    ([1, 2, 3], "a list of 3"),
    ((), "a tuple of 0"),
    ({"a": 1}, "a dict of 1"),
    (frozenset([1]), "a set of 1"),
    (np.zeros((2, 3)), "an array of shape [2, 3]"),
    (object(), "an object"),
    (Talkative(), "a Talkative"),
    (TalkativeList([Talkative()]), "a list of 1"),
    (TalkativeText("soft"), "'soft'"),
]


@pytest.mark.parametrize(("value", "expected"), SAID, ids=[expected for _, expected in SAID])
def test_values_are_said_without_their_repr(value: Any, expected: str) -> None:
    assert short(value) == expected


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(Talkative)
    | st.integers(0, 3000).map(lambda power: 7**power),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(VALUES | st.text(min_size=150, max_size=2000) | st.characters().map(lambda letter: letter * 500))
def test_what_is_said_is_one_short_line(value: Any) -> None:
    said = short(value)
    assert 0 < len(said) <= LONGEST + 2 and "\n" not in said and said.isprintable() or "\u2028" in said
    assert " at 0x" not in said or isinstance(value, str)


@given(st.text(alphabet="abc/é'", min_size=1, max_size=LONGEST - 2))
def test_short_text_is_said_whole(text: str) -> None:
    assert short(text) == repr(text) or len(repr(text)) > LONGEST


@given(st.text(max_size=5000))
def test_a_path_keeps_its_beginning_and_end(text: str) -> None:
    said = short_path(text)
    assert len(said) <= LONGEST and said[:90] == text[:90] and said[-90:] == text[-90:]


def test_reasons_of_other_libraries_are_cut_and_have_no_addresses() -> None:
    assert (
        reason(OSError("cannot identify image file <_io.BytesIO object at 0x7f56bd23be70>"))
        == "cannot identify image file the data"
    )
    assert (
        reason(ValueError("two\n  lines")) == "two lines"
        and reason(KeyboardInterrupt()) == "KeyboardInterrupt"
    )
    assert len(reason(ValueError("x" * 5000))) <= LONGEST
