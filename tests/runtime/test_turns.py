from __future__ import annotations

import threading
import time

from antiphon.runtime.turns import NORMAL, URGENT, Turns


def queue_up(turns: Turns, wishes: list[tuple[str, int]], first: str = "holder") -> list[str]:
    """Everyone in `wishes` asks in this order while someone holds the pool; returns the order in which they got it."""
    order: list[str] = []
    threads = []

    def work(name: str, priority: int) -> None:
        with turns.take(priority):
            order.append(name)

    with turns.take():
        for name, priority in wishes:
            waiting = len(turns._waiters)
            threads.append(threading.Thread(target=work, args=(name, priority)))
            threads[-1].start()
            while len(turns._waiters) == waiting:
                time.sleep(0.001)
    for thread in threads:
        thread.join(5)
    return order


def test_equals_take_turns_in_the_order_of_asking():
    assert queue_up(Turns(), [(name, NORMAL) for name in "abcd"]) == list("abcd")


def test_urgent_goes_first():
    assert queue_up(Turns(), [("a", NORMAL), ("b", NORMAL), ("x", URGENT), ("y", URGENT)]) == ["x", "y", "a", "b"]


def test_nobody_is_passed_over_for_ever():
    order = queue_up(Turns(), [("slow", NORMAL)] + [(f"fast{place}", URGENT) for place in range(20)])
    assert order.index("slow") == 8


def test_only_one_holds_the_pool():
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with turns.take():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 1


def test_an_error_inside_gives_the_turn_back():
    turns = Turns()
    try:
        with turns.take():
            raise ValueError
    except ValueError:
        pass
    with turns.take():
        pass
