"""Who may run a reply."""

from __future__ import annotations

import os

import pytest

from antiphon.runtime.bundle.errors import Busy, Closed
from antiphon.runtime.scheduling.admission import Admission, Place
from antiphon.runtime.scheduling.channels import Cancelled


class Running:
    """A reply that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @property
    def stopped(self) -> bool:
        return bool(self.told)

    def stop(self) -> None:
        self.told.append("stop")

    def close(self) -> None:
        self.told.append("close")

    def join(self) -> None:
        self.told.append("join")


def test_as_many_places_as_streams_are_given_and_the_next_is_refused_after_its_wait():
    admission, places = Admission(2, 0.01), [Place(), Place(), Place()]
    for place in places[:2]:
        admission.take(place)
    with pytest.raises(Busy, match="All 2 streams were busy for 0.01 s"):
        admission.take(places[2])
    admission.give_back(places[2])
    admission.give_back(places[0])
    admission.take(places[0])


def test_giving_back_twice_gives_one_place():
    admission, first, second, third = Admission(1, 0.01), Place(), Place(), Place()
    admission.take(first)
    admission.give_back(first)
    admission.give_back(first)
    admission.take(second)
    with pytest.raises(Busy):
        admission.take(third)


def test_closing_stops_every_reply_before_it_waits_for_one_and_refuses_all_that_come():
    admission, replies = Admission(2), [Running(), Running()]
    for reply in replies:
        admission.register(Place(), reply)
    admission.close()
    assert [reply.told for reply in replies] == [["stop", "close"]] * 2
    for refused in (
        admission.check_open,
        lambda: admission.take(Place()),
        lambda: admission.register(Place(), Running()),
    ):
        with pytest.raises(Closed):
            refused()


def test_a_withdrawn_place_stops_its_reply_and_takes_no_other():
    admission, place, reply = Admission(1), Place(), Running()
    admission.register(place, reply)
    place.withdraw()
    assert reply.told == ["stop"]
    with pytest.raises(Cancelled):
        admission.register(place, Running())


def test_a_reply_that_ended_is_not_kept():
    admission, place = Admission(1), Place()
    admission.take(place)
    admission.register(place, Running())
    admission.give_back(place)
    assert place.running is None


def test_in_a_fork_closing_leaves_the_replies_of_the_other_process_alone(monkeypatch: pytest.MonkeyPatch):
    admission, reply, process = Admission(1), Running(), os.getpid()
    admission.register(Place(), reply)
    monkeypatch.setattr(os, "getpid", lambda: process + 1)
    assert not admission.is_of_this_process
    admission.close()
    assert reply.told == []
    with pytest.raises(Closed, match="fork"):
        admission.check_open()
