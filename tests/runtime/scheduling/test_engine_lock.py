from __future__ import annotations

import threading
import time

import pytest

from antiphon.runtime.scheduling.engine_lock import NORMAL, URGENT, EngineLock


def queue_up(engine_lock: EngineLock, wishes: list[tuple[str, int]]) -> list[str]:
    """Everyone in `wishes` asks in this order while someone holds the pool;
    returns the order in which they got it.
    """
    order: list[str] = []
    threads = []

    def ask() -> None:
        for name, priority in wishes:
            waiting = len(engine_lock._waiters)
            threads.append(threading.Thread(target=engine_lock.run, args=(priority, order.append, name)))
            threads[-1].start()
            while len(engine_lock._waiters) == waiting:
                time.sleep(0.001)

    engine_lock.run(NORMAL, ask)
    for thread in threads:
        thread.join(5)
    return order


def test_equals_take_turns_in_the_order_of_asking():
    assert queue_up(EngineLock(), [(name, NORMAL) for name in "abcd"]) == list("abcd")


def test_urgent_goes_first():
    assert queue_up(EngineLock(), [("a", NORMAL), ("b", NORMAL), ("x", URGENT), ("y", URGENT)]) == [
        "x",
        "y",
        "a",
        "b",
    ]


def test_nobody_is_passed_over_for_ever():
    order = queue_up(EngineLock(), [("slow", NORMAL)] + [(f"fast{place}", URGENT) for place in range(20)])
    assert order.index("slow") == 8


def test_only_one_holds_the_pool():
    engine_lock, inside, most = EngineLock(), 0, 0

    def enter() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        inside -= 1

    def work() -> None:
        for _ in range(50):
            engine_lock.run(NORMAL, enter)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1


def test_an_error_inside_gives_the_turn_back():
    engine_lock = EngineLock()
    with pytest.raises(ZeroDivisionError):
        engine_lock.run(NORMAL, lambda: 1 // 0)
    assert engine_lock.run(NORMAL, lambda: 7)[0] == 7


def test_a_run_tells_how_long_it_took_without_the_wait_for_its_turn():
    engine_lock, seconds = EngineLock(), []

    def wait_for_a_turn() -> None:
        seconds.append(engine_lock.run(NORMAL, time.sleep, 0.01)[1])

    thread = threading.Thread(target=wait_for_a_turn)

    def hold() -> None:
        thread.start()
        time.sleep(0.2)

    engine_lock.run(NORMAL, hold)
    thread.join(5)
    assert 0.01 <= seconds[0] < 0.1


def test_a_turn_that_is_kept_comes_after_the_run_in_flight_and_lets_nobody_in():
    engine_lock, order = EngineLock(), []
    began = threading.Event()

    def hold() -> None:
        began.set()
        time.sleep(0.1)
        order.append("run")

    threading.Thread(target=engine_lock.run, args=(NORMAL, hold), daemon=True).start()
    began.wait(5)
    late = threading.Thread(target=engine_lock.run, args=(URGENT, order.append, "late"), daemon=True)
    late.start()
    engine_lock.keep()
    late.join(0.05)
    assert order == ["run"]
