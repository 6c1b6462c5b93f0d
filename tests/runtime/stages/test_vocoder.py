from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.scheduling.engine_lock import NORMAL, EngineLock
from antiphon.runtime.stages.aria import Frame
from antiphon.runtime.stages.vocoder import Vocoder, check_schedule, packets


def frames(count: int) -> list[Frame]:
    return [Frame(index, np.array([index, 2, 3, index % 5]), index) for index in range(count)]


@given(st.integers(0, 60), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_packets_hold_every_frame_once_in_order_and_follow_the_schedule(count, schedule):
    source = iter(frames(count))
    grouped = list(packets(lambda: next(source, None), schedule))
    assert [frame.index for packet in grouped for frame in packet] == list(range(count))
    sizes = [len(packet) for packet in grouped]
    wanted = (schedule + [schedule[-1]] * count)[: len(sizes)]
    assert all(sizes) and sizes[:-1] == wanted[:-1] and (not sizes or sizes[-1] <= wanted[-1])


@pytest.mark.parametrize("schedule", [(), (0,), (2, -1), (1.5,), (True,)])
def test_a_schedule_of_anything_but_positive_integers_is_refused(schedule):
    with pytest.raises(AntiphonError, match="packet_schedule"):
        check_schedule(schedule)


@pytest.mark.parametrize("schedule", [(1,), (2, 3), (20,)])
def test_the_lead_is_dropped_once_and_the_sound_is_that_of_one_decode(fakes, schedule):
    def sound(schedule):
        vocoder, source = Vocoder(fakes.engines["code2wav"], EngineLock(), lambda: NORMAL), iter(frames(20))
        return np.concatenate(
            [vocoder.decode(packet) for packet in packets(lambda: next(source, None), schedule)]
        )

    assert len(sound(schedule)) == 20 * fakes.samples - fakes.lead
    assert np.array_equal(sound(schedule), sound((20,)))


def test_frames_already_decoded_are_counted_for_the_graph(fakes):
    vocoder = Vocoder(fakes.engines["code2wav"], EngineLock(), lambda: NORMAL)
    vocoder.decode(frames(3))
    vocoder.decode(frames(2))
    assert [int(feeds["past_length"][0]) for feeds in fakes.engines["code2wav"].feeds] == [0, 3]
