"""Slots that lie side by side: whatever joins, leaves or grows, each keeps its own states."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import Busy, ContextFull
from antiphon.runtime.bundle.specs import StateSpec
from antiphon.runtime.states.contiguous import ContiguousPool
from antiphon.runtime.states.pool import BLOCK, Slot

KV = StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 3))
SUM = StateSpec("sum", "recurrent", "float32", ("batch", 4))


def run(pool: ContiguousPool, slots: list[Slot], value: float) -> None:
    """What an engine and its worker do for one row of each slot: row i gets value + i."""
    for slot in slots:
        slot.reserve(1)
    states = pool.gather(slots)
    values = value + np.arange(len(slots), dtype=np.float32)
    kv = states.past("key.0")
    assert kv.flags.c_contiguous and kv.shape[0] == len(slots)
    for row, slot in enumerate(slots):
        kv[row, :, slot.length] = values[row]
    states.present("sum")[...] = states.past("sum") + values[:, None]
    states.flip()
    for slot in slots:
        slot.advance(1)


def seen(slot: Slot) -> list[float]:
    return slot.past("key.0")[0, 1, : slot.length, 2].tolist()


def check(slot: Slot, history: list[float]) -> None:
    assert slot.length == len(history) and seen(slot) == history
    assert slot.past("sum").tolist() == [[sum(history)] * 4]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7), st.integers(1, 8)), max_size=40))
def test_slots_keep_their_states_in_any_order_of_joining_leaving_growing_and_running(actions):
    pool = ContiguousPool([KV, SUM], rows=4, capacity=3000)
    histories: dict[Slot, list[float]] = {}
    for number, (action, which, count) in enumerate(actions):
        if action == 0 and len(histories) < 4:
            histories[pool.allocate()] = []
        elif action == 1 and histories:
            slot = list(histories)[which % len(histories)]
            del histories[slot]
            pool.free(slot)
        elif action == 2 and histories:
            slot = list(histories)[which % len(histories)]
            slot.reserve(min(1500, 300 * count))
        elif action == 3 and histories:
            chosen = np.random.default_rng(which).permutation(len(histories))[: min(count, len(histories))]
            slots = [list(histories)[place] for place in chosen]
            run(pool, slots, 100.0 * number)
            for row, slot in enumerate(slots):
                histories[slot].append(100.0 * number + row)
        for slot, history in histories.items():
            check(slot, history)


def test_slots_that_keep_running_together_do_not_move():
    pool = ContiguousPool([KV, SUM], rows=8)
    slots = [pool.allocate() for _ in range(8)]
    run(pool, slots, 0)
    generation, moves = slots[0].generation, pool.moves
    for step in range(20):
        run(pool, slots, step)
    assert pool.moves == moves == 0 and slots[0].generation is generation


@pytest.mark.parametrize("leaver", range(8))
def test_leaving_and_joining_move_one_slot_in_the_order_that_the_pool_gives(leaver):
    pool = ContiguousPool([KV], rows=8)
    slots = [pool.allocate() for _ in range(8)]
    rest = [slot for slot in slots if slot is not slots[leaver]]
    pool.gather(pool.order(slots))
    assert pool.moves == 0
    pool.free(slots[leaver])
    pool.gather(pool.order(rest))
    assert pool.moves <= 1
    pool.gather(pool.order([*rest, pool.allocate()]))
    assert pool.moves <= 2


def test_growing_moves_one_slot_to_the_next_class_and_the_others_stay():
    pool = ContiguousPool([KV], rows=4, capacity=5000)
    slots = [pool.allocate() for _ in range(4)]
    for rows, capacity in ((BLOCK, 256), (257, 1024), (1024, 1024), (1025, 4096), (4097, 5000)):
        slots[1].reserve(rows)
        assert slots[1].capacity == capacity
    assert pool.moves == 3 and [slot.capacity for slot in slots] == [256, 5000, 256, 256]
    with pytest.raises(ContextFull, match="holds 5000 rows and 5001 are needed"):
        slots[1].reserve(5001)


def test_a_short_slot_goes_to_the_class_of_a_long_one_that_it_runs_with():
    pool = ContiguousPool([KV], rows=3)
    short, other, long = (pool.allocate() for _ in range(3))
    long.reserve(300)
    pool.gather([short, long])
    assert (short.capacity, other.capacity, long.capacity) == (1024, 256, 1024)


def test_arrays_of_a_class_go_with_its_last_slot():
    pool = ContiguousPool([KV], rows=4)
    slots = [pool.allocate() for _ in range(4)]
    small = pool.bytes
    generation = weakref.ref(slots[0].generation)
    for slot in slots:
        slot.reserve(300)
    assert generation() is None and pool.bytes == 4 * small
    for slot in slots:
        pool.free(slot)
    assert pool.bytes == 0


def test_a_place_holds_zeros_when_it_is_given_again():
    pool = ContiguousPool([KV, SUM], rows=2)
    kept, freed = pool.allocate(), pool.allocate()
    run(pool, [kept, freed], 5)
    freed.past("key.0")[...] = np.nan
    pool.free(freed)
    again = pool.allocate()
    assert again.row == 1 and again.length == 0
    assert not any(again.past(name).any() or again.present(name).any() for name in ("key.0", "sum"))


def test_a_slot_that_nobody_holds_leaves_its_place():
    pool = ContiguousPool([KV], rows=2)
    slots = [pool.allocate(), pool.allocate()]
    with pytest.raises(Busy, match="All 2 slots"):
        pool.allocate()
    del slots[0]
    assert pool.allocate().row == 0


def test_a_snapshot_of_one_slot_is_restored_where_the_slot_is_now():
    pool = ContiguousPool([KV, SUM], rows=3)
    slots = [pool.allocate() for _ in range(3)]
    run(pool, slots, 10)
    snapshot = slots[2].snapshot()
    run(pool, [slots[2], slots[0]], 20)
    slots[2].reserve(300)
    run(pool, [slots[1], slots[2]], 30)
    slots[2].restore(snapshot)
    check(slots[0], [10, 21])
    check(slots[1], [11, 30])
    check(slots[2], [12])


def test_a_slot_of_another_pool_and_a_slot_twice_are_no_batch():
    pool, other = ContiguousPool([KV], rows=2), ContiguousPool([KV], rows=2)
    slot = pool.allocate()
    for slots in ([slot, slot], [slot, other.allocate()]):
        with pytest.raises(AssertionError, match="distinct and of one pool"):
            pool.gather(slots)
