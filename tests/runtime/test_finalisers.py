"""Forgotten replies, closed by the garbage collector in whichever thread it runs:
also in one of their own workers, which may hold their lock.
"""

from __future__ import annotations

import threading

import pytest

from antiphon.runtime.reply import ReplyStream
from antiphon.runtime.scheduling.admission import Admission, Place
from antiphon.runtime.scheduling.channels import Cancelled, Channel, Control
from antiphon.runtime.scheduling.engine_lock import NORMAL, EngineLock

from .child import run_child


def test_a_reply_forgotten_in_a_cycle_ends_and_gives_its_place_back():
    lines = run_child("""
        fakes.engines["talker"].tail = None
        omni = fakes.omni(max_streams=2)
        for seed in range(60):
            stream = omni.stream(QUESTION, max_frames=100_000, seed=seed, packet_schedule=(1,))
            next(stream)
            circle = [stream]
            circle.append(circle)
            gc.set_threshold(1)
            del stream, circle
            time.sleep(0.005)
            gc.set_threshold(700)
        omni.close()
        print("closed", [thread.name for thread in threading.enumerate()])
    """)
    assert lines == ["closed ['MainThread']"]


def test_a_generator_that_closes_its_reply_may_be_collected_anywhere():
    """In a worker, in a call that waits for a place, and in one that has the turn:
    the close then waits for nobody.
    """
    lines = run_child("""
        fakes.engines["talker"].tail = None
        omni = fakes.omni(max_streams=2)

        def speech(seed):
            circle = []
            with omni.stream(QUESTION, max_frames=100_000, seed=seed, packet_schedule=(1,)) as stream:
                circle.append((yield))
                for event in stream:
                    yield event

        for seed in range(60):
            generator = speech(seed)
            next(generator)
            generator.send(generator)
            gc.set_threshold(1)
            del generator
            conversation = omni.conversation()
            conversation.append(text="abc")
            gc.set_threshold(700)
        gc.collect()
        omni.close()
        print("closed", [thread.name for thread in threading.enumerate()])
    """)
    assert lines == ["closed ['MainThread']"]


def within(seconds: float, action) -> None:
    """Fail, rather than hang, where `action` waits for ever."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"


def test_stopping_a_stream_takes_no_lock():
    control = Control()
    with control.lock:
        within(5, control.stop)
    assert control.stopped


def test_stopping_without_the_lock_misses_nobody_who_begins_to_wait():
    for _ in range(300):
        control, raised = Control(), []
        channel: Channel[int] = Channel(control, 1)

        def wait(channel=channel, raised=raised) -> None:
            with pytest.raises(Cancelled):
                channel.get()
            raised.append(True)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        control.stop()
        thread.join(5)
        assert raised


def test_withdrawing_a_wish_for_a_place_and_closing_take_no_lock():
    admission, taken, wish = Admission(1), Place(), Place()
    admission.take(taken)

    def wait() -> None:
        with pytest.raises(Cancelled):
            admission.take(wish)
        admission.give_back(wish)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while wish not in admission._waiting:
        pass
    with admission._lock:
        within(5, wish.withdraw)
    thread.join(5)
    with admission._lock:
        within(5, admission.close)
    assert not thread.is_alive() and wish not in admission._taken


def test_places_are_given_in_the_order_of_asking():
    admission, first = Admission(1), Place()
    admission.take(first)
    order: list[int] = []

    def work(number: int) -> None:
        place = Place()
        admission.take(place)
        order.append(number)
        admission.give_back(place)

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(4)]
    for number, thread in enumerate(threads):
        thread.start()
        while len(admission._waiting) <= number:
            pass
    admission.give_back(first)
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3]


def test_closing_with_the_turn_in_hand_does_not_wait_for_workers_that_need_it(fakes):
    fakes.engines["talker"].tail = None
    omni = fakes.omni()
    stream = omni.stream([{"role": "user", "content": "hello"}], max_frames=100_000)
    engine_lock: EngineLock = omni.model.engine_lock
    within(10, lambda: engine_lock.run(NORMAL, stream.close))
    assert list(stream) == []


def test_a_handle_that_was_never_made_is_forgotten_in_silence():
    ReplyStream.__new__(ReplyStream).__del__()
