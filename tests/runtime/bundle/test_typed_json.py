"""JSON into dataclasses: what fits comes back, what does not is named."""

from __future__ import annotations

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.typed_json import typed


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    size: int | str = 0


@dataclasses.dataclass(frozen=True)
class Whole:
    parts: tuple[Part, ...]
    kind: Literal["a", "b"]
    ratio: float = 1.0
    table: dict[str, list[int]] = dataclasses.field(default_factory=dict)


GIVEN = {
    "parts": [{"name": "p", "size": "batch"}, {"name": "q"}],
    "kind": "a",
    "ratio": 2,
    "table": {"x": [1, 2]},
    "unknown": None,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["parts", "name", "size", "kind", "ratio", "table"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


def test_what_fits_comes_back() -> None:
    assert typed(Whole, GIVEN, "file") == Whole((Part("p", "batch"), Part("q")), "a", 2, {"x": [1, 2]})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "c"}, "file: kind is 'c', expected one of a, b"),
        ({"kind": ["a"]}, "file: kind is"),
        ({"ratio": True}, "file: ratio is True, expected a value of type float"),
        ({"parts": {}}, "file: parts is a dict of 0, expected a list"),
        ({"parts": [{}]}, r"file: parts\[0\] lacks the field name"),
        ({"parts": [{"name": "\ud800"}]}, r"file: parts\[0\]: name is .*, expected text that is Unicode"),
        ({"table": {"\ud800": []}}, "file: table is .*, expected names that are Unicode"),
        (
            {"table": {"x": [2**63]}},
            r"file: table.x\[0\] is 9223372036854775808, expected an integer of 64 bits",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(change: dict[str, object], named: str) -> None:
    with pytest.raises(AntiphonError, match=named):
        typed(Whole, GIVEN | change, "file")


@given(value=ANYTHING)
def test_anything_else_is_one_short_sentence(value: object) -> None:
    try:
        found = typed(Whole, value, "file")
    except AntiphonError as error:
        assert len(str(error)) < 400 and str(error).endswith("; build the bundle again.")
    else:
        json.dumps(dataclasses.asdict(found)).encode()
