from __future__ import annotations

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError, Busy
from antiphon.runtime.bundle.specs import StateSpec
from antiphon.runtime.states.pool import BLOCK, UNLIMITED, Slot, StatePool

KV = StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 3))
CONV = StateSpec("conv", "conv", "float32", ("batch", 4))


def slot_of(*specs: StateSpec, limit: int = UNLIMITED) -> Slot:
    return StatePool(specs, 1, limit).allocate()


def feed(slot: Slot, value: float) -> None:
    """What an engine and its worker do for one row."""
    slot.reserve(1)
    slot.present("key.0")[:, :, slot.length] = value
    if "conv" in {spec.name for spec in slot.pool.specs}:
        slot.present("conv")[...] = slot.past("conv") + value
    slot.flip()
    slot.advance(1)


def seen(slot: Slot) -> list[float]:
    return slot.past("key.0")[0, 1, : slot.length, 2].tolist()


def test_states_begin_as_zeros_of_the_described_shape():
    slot = slot_of(KV, CONV)
    assert slot.past("key.0").shape == (1, 2, BLOCK, 3) and slot.past("conv").shape == (1, 4)
    assert not slot.past("key.0").any() and not slot.past("conv").any()


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_growing_keeps_every_row_and_stays_in_blocks(chunks):
    slot = slot_of(KV, limit=5000)
    rows: list[float] = []
    for chunk in chunks:
        slot.reserve(chunk)
        assert slot.capacity >= slot.length + chunk and (slot.capacity % BLOCK == 0 or slot.capacity == 5000)
        for row in range(chunk):
            slot.past("key.0")[:, :, slot.length + row] = len(rows)
            rows.append(float(len(rows)))
        slot.advance(chunk)
    assert seen(slot) == rows


def test_kv_is_written_where_it_is_read_and_the_rest_swaps():
    slot = slot_of(KV, CONV)
    assert slot.past("key.0") is slot.present("key.0")
    past, present = slot.past("conv"), slot.present("conv")
    slot.flip()
    assert slot.past("conv") is present and slot.present("conv") is past


def test_states_of_kind_kv_alone_are_always_in_the_same_place():
    slot = slot_of(KV)
    before = slot.place
    slot.flip()
    assert slot.place == before


@given(
    st.lists(st.integers(-9, 9), max_size=20),
    st.lists(st.integers(-9, 9), max_size=20),
    st.lists(st.integers(-9, 9), max_size=20),
)
def test_restoring_a_snapshot_is_as_if_the_rest_had_never_been(before, lost, after):
    slot, expected = slot_of(KV, CONV), slot_of(KV, CONV)
    for value in before:
        feed(slot, value)
        feed(expected, value)
    snapshot = slot.snapshot()
    for value in lost:
        feed(slot, value)
    slot.restore(snapshot)
    for value in after:
        feed(slot, value)
        feed(expected, value)
    assert seen(slot) == seen(expected) and np.array_equal(slot.past("conv"), expected.past("conv"))


def test_the_capacity_of_the_pool_is_refused_before_anything_changes():
    slot = slot_of(KV, limit=300)
    slot.reserve(300)
    assert slot.capacity == 300
    slot.advance(300)
    with pytest.raises(AntiphonError, match="holds 300 rows and 301 are needed"):
        slot.reserve(1)


def test_growing_ends_the_generation_of_the_arrays_and_nothing_else_does():
    slot = slot_of(KV, CONV)
    first = weakref.ref(slot.generation)
    feed(slot, 1)
    slot.restore(slot.snapshot())
    slot.reserve(BLOCK - 1)
    assert first() is slot.generation
    slot.reserve(BLOCK)
    assert first() is None


def test_no_more_than_one_state_is_held_twice_while_all_of_them_grow():
    specs = [StateSpec(f"key.{layer}", "kv", "float32", ("batch", 2, "capacity", 64)) for layer in range(8)]
    bindings: weakref.WeakKeyDictionary[object, list[np.ndarray]] = weakref.WeakKeyDictionary()
    tracemalloc.start()
    try:
        slot = StatePool(specs).allocate()
        slot.advance(BLOCK)
        bindings[slot.generation] = [slot.past(spec.name) for spec in specs]  # as an engine keeps them
        tracemalloc.reset_peak()
        slot.reserve(7 * BLOCK)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert slot.capacity == 8 * BLOCK and slot.bytes <= peak < slot.bytes + slot.bytes // 8 / 4


def test_a_pool_gives_its_slots_and_no_more():
    pool = StatePool([KV], rows=2)
    slots = [pool.allocate(), pool.allocate()]
    with pytest.raises(Busy, match="All 2 slots of the pool are in use; free one"):
        pool.allocate()
    pool.free(slots[0])
    assert pool.slots == [slots[1]] and pool.allocate().length == 0


def test_slots_have_lengths_and_capacities_of_their_own():
    pool = StatePool([KV, CONV], rows=2)
    one, other = pool.allocate(), pool.allocate()
    one.reserve(1000)
    one.advance(1000)
    assert (one.length, other.length) == (1000, 0) and one.capacity >= 1000 and other.capacity == BLOCK
    assert pool.bytes == one.bytes + other.bytes


def test_a_slot_that_was_freed_is_not_used_again():
    pool = StatePool([KV])
    slot = pool.allocate()
    pool.free(slot)
    for use in (
        lambda: slot.past("key.0"),
        lambda: slot.reserve(BLOCK + 1),
        lambda: slot.snapshot(),
        lambda: pool.free(slot),
    ):
        with pytest.raises(AssertionError):
            use()


def test_a_slot_that_nobody_holds_gives_its_memory_and_its_place_back_at_once():
    pool = StatePool([KV])
    gc.disable()
    try:
        slot = pool.allocate()
        array = weakref.ref(slot.past("key.0"))
        del slot
        assert array() is None and pool.bytes == 0
        pool.allocate()
    finally:
        gc.enable()
