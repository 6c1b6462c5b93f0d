from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.stages.aria import (
    PENALTY_FRAMES,
    PenaltyWindow,
    Policy,
    adaptive,
    bound_violations,
    chunked,
    dual_track,
    need_table,
    parse_policy,
    speak,
    spoken_text,
)

END = -7
POLICIES = st.one_of(
    st.just(dual_track()),
    st.builds(chunked, st.integers(1, 6), st.integers(1, 6)),
    st.builds(adaptive, st.integers(1, 5), st.fractions(Fraction(1, 8), 8)),
)


class Script:
    """A text source and a Talker in one: records what happened in what order.

    Ends `tail` frames after the text could have ended.
    """

    def __init__(self, text: int, tail: int = 0) -> None:
        self.text, self.tail, self.given = text, tail, 0
        self.log: list[object] = []
        self.frames_after_end = 0

    def next(self) -> int | None:
        self.given += 1
        return self.given - 1 if self.given <= self.text else None

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        self.log += [*text_ids, "frame"]
        if END in self.log:
            self.frames_after_end += 1
        return None if END in self.log and self.frames_after_end > self.tail else np.zeros(1, np.int64)


def run(policy: Policy, script: Script, budget: int = 10_000) -> list:
    return list(speak(policy, script, script, END, lambda _: budget))


@given(POLICIES, st.integers(0, 40), st.integers(0, 20))
def test_no_frame_comes_before_the_text_it_needs(policy, text, tail):
    script = Script(text, tail)
    frames = run(policy, script)
    for frame in frames:
        assert frame.cursor == min(
            max(policy.text_rows_before(count + 1) for count in range(frame.index + 1)), text
        )


@given(POLICIES, st.integers(1, 40), st.integers(0, 20))
def test_text_rows_are_fed_in_order_once_and_then_the_end(policy, text, tail):
    script = Script(text, tail)
    frames = run(policy, script)
    assert [row for row in script.log if row != "frame"] == [*range(text), END]
    cursors = [frame.cursor for frame in frames]
    assert cursors == sorted(cursors) and (not frames or cursors[-1] <= text)
    assert [frame.index for frame in frames] == list(range(len(frames)))


@given(st.integers(1, 5), st.fractions(Fraction(1, 8), 8), st.integers(1, 60), st.integers(0, 30))
def test_the_published_bound_holds_at_every_prefix_of_an_adaptive_schedule(lead, ratio, text, tail):
    for frame in run(adaptive(lead, ratio), Script(text, tail)):
        if frame.cursor < text:
            assert frame.index + 1 <= ratio * frame.cursor


def test_chunked_four_four_is_the_shipped_order():
    script = Script(text=7, tail=2)
    run(chunked(4, 4), script)
    four = ["frame"] * 4
    assert script.log == [0, 1, 2, 3, *four, 4, 5, 6, END, "frame", "frame", "frame"]


def test_a_text_of_a_multiple_of_the_chunk_gets_a_chunk_of_its_end_alone():
    script = Script(text=4, tail=1)
    run(chunked(4, 4), script)
    assert script.log == [0, 1, 2, 3, "frame", "frame", "frame", "frame", END, "frame", "frame"]


def test_dual_track_feeds_one_row_a_frame_and_may_end_anywhere():
    script = Script(text=3, tail=2)
    run(dual_track(), script)
    assert script.log == [0, "frame", 1, "frame", 2, "frame", END, "frame", "frame", "frame"]
    assert dual_track().end_anywhere and not chunked(4, 4).end_anywhere


@given(POLICIES)
def test_no_text_gives_no_frame(policy):
    script = Script(0)
    assert run(policy, script) == [] and script.log == []


@given(POLICIES, st.integers(1, 30), st.integers(1, 30))
def test_the_budget_stops_speech_without_asking_for_another_frame(policy, text, budget):
    script = Script(text, tail=10_000)
    assert len(run(policy, script, budget)) == budget == script.log.count("frame")


@given(POLICIES, st.integers(1, 200))
def test_need_never_falls(policy, frame):
    assert 1 <= policy.text_rows_before(frame) <= policy.text_rows_before(frame + 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: chunked(0, 4),
        lambda: chunked(4, 0),
        lambda: adaptive(0, 1),
        lambda: adaptive(1, 0),
        lambda: adaptive(1, float("inf")),
    ],
)
def test_a_policy_that_cannot_run_is_refused(make):
    with pytest.raises(AntiphonError, match="expected"):
        make()


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("dual_track", dual_track()),
        ("chunked", chunked(4, 4)),
        ("chunked:4,4", chunked(4, 4)),
        (" chunked: 1, 3 ", chunked(1, 3)),
        ("adaptive", adaptive(4, 1)),
        ("adaptive:2.5", adaptive(4, 2.5)),
        ("adaptive:5/2", adaptive(4, 2.5)),
        ("adaptive:3,7", adaptive(7, 3)),
    ],
)
def test_a_policy_is_read_from_its_name(text, policy):
    read = parse_policy(text)
    assert read.name == policy.name and (read.end_anywhere, read.penalty_window, read.penalty_restarts) == (
        policy.end_anywhere,
        policy.penalty_window,
        policy.penalty_restarts,
    )
    assert need_table(read, 99).tolist() == need_table(policy, 99).tolist()


def test_the_ratio_that_is_not_named_is_the_one_given():
    assert parse_policy("adaptive", 2.5).name == parse_policy("adaptive:2.5", 9).name == "adaptive:2.5,4"


@given(POLICIES)
def test_the_name_of_a_policy_reads_as_that_policy(policy):
    assert need_table(parse_policy(policy.name), 60).tolist() == need_table(policy, 60).tolist()


def test_a_float_ratio_is_the_decimal_number_that_it_prints_as():
    assert adaptive(1, 3.3).text_rows_before(33) == 10
    assert adaptive(1, np.float64(3.3)).text_rows_before(33) == 10
    assert adaptive(1, 1e-12).text_rows_before(1) == 10**12


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ARIA",
        "dual",
        "dual_track:1",
        "chunked:",
        "chunked:4",
        "chunked:4,4,4",
        "chunked:a,b",
        "chunked:-1,4",
        "chunked:0,4",
        "adaptive:",
    ]
    + ["adaptive:,4", "adaptive:2,", "adaptive:0", "adaptive:-1"]
    + [
        "adaptive:1/0",
        "adaptive:nan",
        "adaptive:inf",
        "adaptive:1e999999999",
        "adaptive:1,0",
        "adaptive:1,2,3",
    ],
)
def test_a_name_of_no_policy_is_an_error_of_one_sentence(text):
    with pytest.raises(AntiphonError, match="expected") as raised:
        parse_policy(text)
    assert str(raised.value).count("\n") == 0 and str(raised.value).endswith(".")


def remembered(policy: Policy, events: list[int | None]) -> list[set[int]]:
    """The penalised ids after each event: a code 0, or None where text goes in."""
    mask = np.zeros(8, bool)
    window, seen = PenaltyWindow(policy, mask), []
    for event in events:
        if event is None:
            window.fed_text()
        else:
            window.add(event)
        seen.append(set(np.flatnonzero(mask).tolist()))
    return seen


EVENTS = st.lists(st.one_of(st.none(), st.integers(0, 7)), max_size=200)


@given(EVENTS)
def test_the_penalty_remembers_the_whole_answer_on_the_dual_track(events):
    assert remembered(dual_track(), events) == [
        {code for code in events[: end + 1] if code is not None} for end in range(len(events))
    ]


@given(EVENTS)
def test_the_penalty_starts_anew_at_each_chunk(events):
    starts = [
        max((place for place in range(end + 1) if events[place] is None), default=-1) + 1
        for end in range(len(events))
    ]
    assert remembered(chunked(4, 4), events) == [
        set(events[start : end + 1]) for end, start in enumerate(starts)
    ]


@given(st.lists(st.one_of(st.none(), st.integers(0, 7)), min_size=80, max_size=200))
def test_the_penalty_remembers_the_last_frames_of_an_adaptive_schedule(events):
    assert adaptive(1, 1).penalty_window == PENALTY_FRAMES == 64
    codes = [[code for code in events[: end + 1] if code is not None] for end in range(len(events))]
    assert remembered(adaptive(1, 1), events) == [set(past[-64:]) for past in codes]


def test_the_cursor_is_what_was_consumed_where_nothing_else_is_known():
    assert [spoken_text(frame, 4) for frame in range(3)] == [4, 4, 4]


def test_the_cursor_follows_an_estimate_of_the_duration():
    assert [spoken_text(frame, 2, frames_per_token=3) for frame in range(8)] == [1, 1, 1, 2, 2, 2, 2, 2]
    with pytest.raises(AntiphonError, match="frames_per_token is 0, expected"):
        spoken_text(0, 1, frames_per_token=0)


def test_the_cursor_spreads_the_text_over_all_frames_once_they_are_known():
    assert [spoken_text(frame, consumed, 6, 3) for frame, consumed in enumerate([1, 1, 1, 2, 2, 2])] == [
        1,
        1,
        1,
        2,
        2,
        3,
    ]


def test_prefixes_with_too_much_speech_are_counted():
    # the fourth frame: 4 of 6 said, 4 of 8 known
    assert bound_violations([4, 4, 4, 4, 8, 8], total_text=8, total_frames=6) == 1
    assert bound_violations([1, 2, 3], total_text=3, total_frames=3) == 0
    assert bound_violations([], total_text=0, total_frames=0) == 0


def test_the_table_of_a_tiny_ratio_holds_the_largest_number_there_is():
    assert need_table(adaptive(1, Fraction(1, 10**30)), 2).tolist() == [np.iinfo(np.int64).max] * 2
