from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.aria import Policy, adaptive, chunked, dual_track, speak
from antiphon.runtime.errors import AntiphonError

END = -7
POLICIES = st.one_of(
    st.just(dual_track()),
    st.builds(chunked, st.integers(1, 6), st.integers(1, 6)),
    st.builds(adaptive, st.integers(1, 5), st.fractions(Fraction(1, 8), 8)),
)


class Script:
    """A text source and a Talker in one: records what happened in what order. Ends `tail` frames after the text could have ended."""

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
        assert frame.cursor == min(max(policy.need(count + 1) for count in range(frame.index + 1)), text)


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
    assert 1 <= policy.need(frame) <= policy.need(frame + 1)


@pytest.mark.parametrize(
    "make", [lambda: chunked(0, 4), lambda: chunked(4, 0), lambda: adaptive(0, 1), lambda: adaptive(1, 0), lambda: adaptive(1, float("inf"))]
)
def test_a_policy_that_cannot_run_is_refused(make):
    with pytest.raises(AntiphonError, match="expected"):
        make()
