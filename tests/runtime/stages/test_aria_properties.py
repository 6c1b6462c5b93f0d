"""What ARIA promises of any text that arrives in any way, held against a Talker whose frames depend
on everything it was fed.
"""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.scheduling.channels import Cancelled, Channel, Control
from antiphon.runtime.stages.aria import (
    Frame,
    Policy,
    adaptive,
    bound_violations,
    chunked,
    dual_track,
    speak,
    spoken_text,
)

END = 999
RATIOS = st.fractions(Fraction(1, 4), 6, max_denominator=12)
CHUNKED = st.builds(chunked, st.integers(1, 6), st.integers(1, 6))
ADAPTIVE = st.builds(adaptive, st.integers(1, 6), RATIOS)
SINGLE_STREAM = st.one_of(CHUNKED, ADAPTIVE)
POLICIES = st.one_of(st.just(dual_track()), SINGLE_STREAM)
# shorter than a chunk, multiples of four, and anything
LENGTHS = st.one_of(st.integers(1, 4), st.integers(1, 50).map(lambda count: 4 * count), st.integers(1, 200))
# Thinkers: steady and slow or fast, in bursts, with stalls; the seconds between one token and the next
GAPS = st.one_of(
    st.sampled_from([0.0, 1 / 75, 1 / 30, 0.08, 1 / 8]).map(lambda gap: [gap]),
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.3]), min_size=1, max_size=9),
    st.lists(st.sampled_from([0.03, 0.03, 0.03, 2.0, 30.0]), min_size=1, max_size=9),
)


@dataclass
class Thinker:
    """A text source on a clock of its own: token i arrives when its gaps have passed, `next` waits for it.

    `stop_at` cancels before that token.
    """

    length: int
    gaps: list[float]
    stop_at: int | None = None
    clock: float = 0.0
    given: int = 0
    waits: int = 0

    def next(self) -> int | None:
        if self.given == self.stop_at:
            raise Cancelled
        if self.given == self.length:
            return None
        arrival = sum(self.gaps[place % len(self.gaps)] for place in range(self.given + 1))
        self.waits += arrival > self.clock
        self.clock = max(self.clock, arrival)
        self.given += 1
        return self.given - 1


@dataclass
class Talker:
    """Rows in, frames out: every code is a checksum of all rows fed so far and of the seed.

    Would like to end after `natural` frames.
    """

    seed: int
    natural: int
    thinker: Thinker | None = None
    rows: list[object] = field(default_factory=list)
    frames: list[tuple[int, ...]] = field(default_factory=list)
    allowed: list[bool] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        self.sum = zlib.crc32(str(self.seed).encode())
        given, self.rows = self.rows, []
        for row in given:
            self.feed(row)

    def feed(self, row: object) -> None:
        self.rows.append(row)
        self.sum = zlib.crc32(str(row).encode(), self.sum)

    def step(self, text_ids: list[int], may_end: bool) -> np.ndarray | None:
        assert not self.ended, "nobody asks a Talker that has ended"
        if self.thinker is not None:
            self.thinker.clock += 0.03
        for token in text_ids:
            self.feed(("text", token))
        self.allowed.append(may_end)
        if may_end and len(self.frames) >= self.natural:
            self.ended = True
            return None
        codes = (self.sum, len(self.frames))
        self.frames.append(codes)
        self.feed(("frame", codes))
        return np.array(codes, np.int64)


def run(
    policy: Policy, length: int, natural: int, seed: int = 0, gaps: list[float] | None = None
) -> tuple[list[Frame], Talker, Thinker]:
    thinker = Thinker(length, gaps or [0.0])
    talker = Talker(seed, natural, thinker)
    return list(speak(policy, thinker, talker, END, lambda _: 5000)), talker, thinker


@settings(max_examples=60, deadline=None)
@given(POLICIES, LENGTHS, st.integers(0, 300), GAPS)
def test_order_is_kept_in_text_and_in_speech(policy, length, natural, gaps):
    frames, talker, _ = run(policy, length, natural, gaps=gaps)
    fed = [row for row in talker.rows if row[0] == "text"]
    whole = [("text", token) for token in [*range(length), END]]
    assert fed == whole if not policy.end_anywhere else fed == whole[: len(fed)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert [tuple(frame.codes) for frame in frames] == talker.frames


@settings(max_examples=60, deadline=None)
@given(SINGLE_STREAM, LENGTHS, st.integers(0, 300), GAPS)
def test_the_talker_cannot_end_before_the_end_of_the_text_is_in(policy, length, natural, gaps):
    frames, talker, _ = run(policy, length, natural, gaps=gaps)
    before_end = talker.rows.index(("text", END)) - length  # frames that were in before tts_eos
    assert talker.allowed == [False] * before_end + [True] * (len(talker.allowed) - before_end)
    assert talker.ended and len(frames) == max(natural, before_end)


@settings(max_examples=60, deadline=None)
@given(POLICIES, LENGTHS, st.integers(0, 300), st.integers(0, 2**32), GAPS, GAPS)
def test_frames_are_a_function_of_text_and_seed_whenever_the_text_arrives(
    policy, length, natural, seed, gaps, others
):
    (first, _, _), (second, _, _) = (run(policy, length, natural, seed, pace) for pace in (gaps, others))
    assert [(frame.cursor, *frame.codes) for frame in first] == [
        (frame.cursor, *frame.codes) for frame in second
    ]


def shipped_loop(
    length: int, natural: int, seed: int, text_rows: int = 4, frames: int = 4
) -> list[tuple[int, ...]]:
    """The interleave as the shipped decoder makes it, written by itself:
    everything again from the first row at each boundary, one sample too many.
    """
    text = [("text", token) for token in [*range(length), END]]
    heard: list[tuple[int, ...]] = []
    stream: list[object] = []
    for start in range(0, len(text), text_rows):
        stream += text[start : start + text_rows]
        is_last = start + text_rows >= len(text)
        talker = Talker(seed, natural, rows=list(stream), frames=list(heard))
        wanted = 5000 if is_last else frames + 1
        sampled = []
        while len(sampled) < wanted and (codes := talker.step([], is_last)) is not None:
            sampled.append(tuple(int(code) for code in codes))
        # the sample after them looked ahead of text that was not in
        kept = sampled if is_last else sampled[:frames]
        stream += [("frame", codes) for codes in kept]
        heard += kept
    return heard


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(0, 300), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 5))
def test_chunks_equal_the_shipped_loop_and_no_look_ahead_sample_is_heard(
    length, natural, seed, text_rows, frames
):
    heard, talker, _ = run(chunked(text_rows, frames), length, natural, seed)
    expected = shipped_loop(length, natural, seed, text_rows, frames)
    assert [tuple(frame.codes) for frame in heard] == expected
    assert len(talker.allowed) == len(expected) + 1  # every sample was a frame, but for the end


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(1, 900), st.integers(1, 6), st.fractions(Fraction(1, 10), 1, max_denominator=20))
def test_the_published_bound_holds_whenever_the_ratio_is_a_lower_bound_of_the_item(
    length, natural, lead, share
):
    ratio = Fraction(natural, length) * share
    frames, _, _ = run(adaptive(lead, ratio), length, natural)
    assert len(frames) == natural
    assert bound_violations([frame.cursor for frame in frames], length, natural) == 0


@settings(max_examples=60, deadline=None)
@given(CHUNKED, LENGTHS, st.integers(1, 900))
def test_chunks_keep_the_published_bound_of_items_with_enough_speech(policy, length, natural):
    frames, _, _ = run(policy, length, natural)
    # of n rows and m frames: enough is m / n frames a row
    most = Fraction(max(Fraction(frame, policy.text_rows_before(frame)) for frame in range(1, 13)))
    if natural >= most * length:
        assert bound_violations([frame.cursor for frame in frames], length, natural) == 0


@settings(max_examples=60, deadline=None)
@given(POLICIES, LENGTHS, st.integers(0, 300), st.one_of(st.none(), st.floats(0.1, 20)))
def test_the_cursor_never_falls_and_never_passes_the_rows_fed_and_ends_with_all_the_text(
    policy, length, natural, estimate
):
    frames, talker, thinker = run(policy, length, natural)
    live = [spoken_text(frame.index, frame.cursor, frames_per_token=estimate) for frame in frames]
    after = [spoken_text(frame.index, frame.cursor, len(frames), thinker.given) for frame in frames]
    for cursors in (live, after):
        assert cursors == sorted(cursors)
        assert all(cursor >= 1 for cursor in cursors)
    fed = [
        sum(row[0] == "text" and row[1] != END for row in talker.rows[:place])
        for place, row in enumerate(talker.rows)
        if row[0] == "frame"
    ]
    assert fed == [frame.cursor for frame in frames]
    assert all(cursor <= rows for cursor, rows in zip(live, fed, strict=True))
    assert all(cursor <= rows for cursor, rows in zip(after[:-1], fed, strict=False))
    assert not frames or after[-1] == thinker.given
    if not policy.end_anywhere:
        assert thinker.given == length


@settings(max_examples=60, deadline=None)
@given(POLICIES, LENGTHS, st.integers(0, 300), GAPS, st.data())
def test_what_was_said_before_a_cancellation_is_a_prefix_of_the_answer(policy, length, natural, gaps, data):
    whole, _, _ = run(policy, length, natural, gaps=gaps)
    thinker = Thinker(length, gaps, stop_at=data.draw(st.integers(0, length)))
    talker = Talker(0, natural, thinker)
    said = []
    try:
        for frame in speak(policy, thinker, talker, END, lambda _: 5000):
            said.append(frame)
        assert policy.end_anywhere  # only who may end early never hears of the cancellation
    except Cancelled:
        pass
    assert [tuple(frame.codes) for frame in said] == [tuple(frame.codes) for frame in whole[: len(said)]]


@settings(max_examples=30, deadline=None)
@given(POLICIES, LENGTHS, st.integers(1, 300), st.data())
def test_a_listener_who_leaves_stops_the_talker_at_once(policy, length, natural, data):
    heard = data.draw(st.integers(1, natural))
    talker = Talker(0, natural)
    stream = speak(policy, Thinker(length, [0.0]), talker, END, lambda _: 5000)
    for _ in range(heard):
        next(stream)
    stream.close()
    assert len(talker.allowed) == heard


@pytest.mark.parametrize("stalled", [False, True])
def test_a_talker_that_waits_for_text_on_a_channel_hears_of_the_cancellation(stalled):
    control = Control()
    text: Channel[int] = Channel(control, 8)

    class Source:
        def next(self) -> int | None:
            return text.get()[0]

    for token in range(2 if stalled else 6):
        text.put(token)
    said: list[int] = []
    errors: list[Cancelled] = []
    chunk_said = threading.Event()

    def work() -> None:
        try:
            for frame in speak(chunked(4, 4), Source(), Talker(0, 50), END, lambda _: 5000):
                said.append(frame.index)
                if len(said) == 4:
                    chunk_said.set()
        except Cancelled as error:
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    assert stalled or chunk_said.wait(30)
    control.stop()
    worker.join(30)
    assert not worker.is_alive() and len(errors) == 1
    assert said == ([] if stalled else [0, 1, 2, 3])
