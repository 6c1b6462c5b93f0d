from __future__ import annotations

import threading
import time

import pytest

from antiphon.runtime.scheduling.channels import Cancelled, Channel, Control


def later(action, seconds: float = 0.03) -> threading.Thread:
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


def test_items_come_in_order_and_none_ends_them():
    channel = Channel(Control(), 5)
    for item in range(3):
        channel.put(item)
    channel.close()
    assert [channel.get()[0] for _ in range(5)] == [0, 1, 2, None, None]


def test_a_full_channel_stalls_its_producer_until_there_is_room():
    channel = Channel(Control(), 1)
    channel.put("a")
    began = time.monotonic()
    thread = later(channel.get)
    channel.put("b")
    assert time.monotonic() - began > 0.02
    thread.join()


def test_waiting_for_an_item_is_told():
    channel = Channel(Control(), 1)
    thread = later(lambda: channel.put("a"))
    assert channel.get() == ("a", True)
    thread.join()
    channel.put("b")
    assert channel.get() == ("b", False)


@pytest.mark.parametrize("action", ["get", "put"])
def test_stopping_wakes_whoever_waits_and_refuses_the_rest(action):
    control = Control()
    channel = Channel(control, 1)
    if action == "put":
        channel.put(0)
    thread = later(control.stop)
    with pytest.raises(Cancelled):
        channel.get() if action == "get" else channel.put(1)
    thread.join()
    with pytest.raises(Cancelled):
        channel.get()


def test_the_first_error_is_kept():
    control = Control()
    control.stop(ValueError("first"))
    control.stop(ValueError("second"))
    assert str(control.error) == "first"


def test_an_abandoned_channel_takes_everything_and_keeps_nothing():
    channel = Channel(Control(), 1)
    for item in range(3):
        if item == 1:
            channel.abandon()
        channel.put(item)


def test_a_consumer_starves_only_after_it_has_handled_what_it_got():
    channel = Channel(Control(), 2)
    assert channel.starving
    channel.put("a")
    assert not channel.starving
    channel.get()
    assert not channel.starving, "the item is being handled"
    thread = threading.Thread(target=channel.get)
    thread.start()
    deadline = time.monotonic() + 5
    while not channel.starving:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    channel.put("b")
    thread.join()
