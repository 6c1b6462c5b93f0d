"""Which hidden rows the Talker will need, from the token ids alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.stages.talker_rows.tapped_rows import (
    content_rows,
    evenly_spaced,
    tapped_rows,
    user_turns,
)

IDS = {
    "im_start": 1,
    "im_end": 2,
    "newline": 3,
    "system": 4,
    "user": 5,
    "assistant": 6,
    "audio": 7,
    "image": 8,
}


def turn(role: str, content: list[int], closed: bool = True) -> list[int]:
    return [1, IDS[role], 3, *content, *([2, 3] if closed else [])]


def test_a_user_turn_reaches_from_its_start_to_the_next_start():
    ids = np.array(
        [*turn("system", [30]), *turn("user", [20, 21]), *turn("assistant", [40]), *turn("user", [22])]
    )
    assert list(user_turns(ids, IDS)) == [(6, 13), (19, 25)]


def test_without_a_limit_given_the_multimodal_tokens_of_all_turns_are_tapped():
    ids = np.array([*turn("user", [20, 7, 7]), *turn("user", [8, 21])])
    assert tapped_rows(ids, IDS, None).tolist() == [4, 5, 11]


def test_content_is_everything_but_starts_ends_roles_and_line_breaks():
    ids = np.array(turn("user", [20, 3, 7, 2, 5, 21]))
    assert content_rows(ids, 0, len(ids), IDS, 0).tolist() == [3, 5, 8]


def test_a_long_turn_is_thinned_evenly_from_its_first_to_its_last_token():
    ids = np.array(turn("user", list(range(100, 200))))
    rows = tapped_rows(ids, IDS, 4)
    assert rows.tolist() == [3, 36, 69, 102]


def test_an_open_turn_keeps_all_content_because_its_length_decides():
    ids = np.array([*turn("user", list(range(100, 120))), *turn("user", list(range(200, 230)), closed=False)])
    rows = tapped_rows(ids, IDS, 4)
    assert len(rows) == 4 + 30


@pytest.mark.parametrize(
    ("count", "limit", "expected"),
    [(5, 0, [0, 1, 2, 3, 4]), (3, 16, [0, 1, 2]), (9, 1, [0]), (100, 2, [0, 99])],
)
def test_even_spacing_at_its_edges(count, limit, expected):
    assert evenly_spaced(count, limit).tolist() == expected


@given(st.integers(0, 5000), st.integers(1, 64))
def test_even_spacing_is_that_of_a_truncated_linspace(count, limit):
    found = evenly_spaced(count, limit)
    assert len(found) == min(count, limit) and (np.diff(found) > 0).all()
    if count > limit > 1:
        # integers, as i * (N - 1) / (M - 1) rounded down: a float linspace may fall just below a whole number
        assert found.tolist() == [place * (count - 1) // (limit - 1) for place in range(limit)]
        assert found[0] == 0 and found[-1] == count - 1


@pytest.mark.parametrize(
    "ids", [[], [20, 21], turn("system", [30])], ids=["nothing", "no turn at all", "a system turn"]
)
def test_nothing_is_tapped_without_a_user_turn(ids):
    assert tapped_rows(np.array(ids, np.int64), IDS, 4).tolist() == []
