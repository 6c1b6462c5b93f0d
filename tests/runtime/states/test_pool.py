from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.bundle.specs import StateSpec
from antiphon.runtime.states.pool import BLOCK, StateSet

KV = StateSpec("key.0", "kv", "float32", ("batch", 2, "capacity", 3))
CONV = StateSpec("conv", "conv", "float32", ("batch", 4))


def feed(states: StateSet, value: float) -> None:
    """What an engine and its worker do for one row."""
    states.reserve(1)
    states.present("key.0")[:, :, states.length] = value
    if "conv" in {spec.name for spec in states.specs}:
        states.present("conv")[...] = states.past("conv") + value
    states.flip()
    states.advance(1)


def seen(states: StateSet) -> list[float]:
    return states.past("key.0")[0, 1, : states.length, 2].tolist()


def test_states_begin_as_zeros_of_the_described_shape():
    states = StateSet([KV, CONV])
    assert states.past("key.0").shape == (1, 2, BLOCK, 3) and states.past("conv").shape == (1, 4)
    assert not states.past("key.0").any() and not states.past("conv").any()


@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_growing_keeps_every_row_and_stays_in_blocks(chunks):
    states = StateSet([KV], limit=5000)
    rows: list[float] = []
    for chunk in chunks:
        states.reserve(chunk)
        assert states.capacity >= states.length + chunk and (states.capacity % BLOCK == 0 or states.capacity == 5000)
        for row in range(chunk):
            states.past("key.0")[:, :, states.length + row] = len(rows)
            rows.append(float(len(rows)))
        states.advance(chunk)
    assert seen(states) == rows


def test_kv_is_written_where_it_is_read_and_the_rest_swaps():
    states = StateSet([KV, CONV])
    assert states.past("key.0") is states.present("key.0")
    past, present = states.past("conv"), states.present("conv")
    states.flip()
    assert states.past("conv") is present and states.present("conv") is past


@given(st.lists(st.integers(-9, 9), max_size=20), st.lists(st.integers(-9, 9), max_size=20), st.lists(st.integers(-9, 9), max_size=20))
def test_restoring_a_snapshot_is_as_if_the_rest_had_never_been(before, lost, after):
    states, expected = StateSet([KV, CONV]), StateSet([KV, CONV])
    for value in before:
        feed(states, value)
        feed(expected, value)
    snapshot = states.snapshot()
    for value in lost:
        feed(states, value)
    states.restore(snapshot)
    for value in after:
        feed(states, value)
        feed(expected, value)
    assert seen(states) == seen(expected) and np.array_equal(states.past("conv"), expected.past("conv"))


def test_the_limit_is_refused_before_anything_changes():
    states = StateSet([KV], limit=300)
    states.reserve(300)
    assert states.capacity == 300
    states.advance(300)
    with pytest.raises(AntiphonError, match="holds 300 rows and 301 are needed"):
        states.reserve(1)


def test_growing_forgets_what_an_engine_prepared():
    states = StateSet([KV])
    states.cache["engine"] = "bindings"
    states.reserve(BLOCK)
    assert states.cache
    states.reserve(BLOCK + 1)
    assert not states.cache


def test_no_more_than_one_state_is_held_twice_while_all_of_them_grow():
    specs = [StateSpec(f"key.{layer}", "kv", "float32", ("batch", 2, "capacity", 64)) for layer in range(8)]
    tracemalloc.start()
    try:
        states = StateSet(specs)
        states.advance(BLOCK)
        states.cache["an engine's bindings"] = [states.past(spec.name) for spec in specs]
        tracemalloc.reset_peak()
        states.reserve(7 * BLOCK)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert states.capacity == 8 * BLOCK and states.bytes <= peak < states.bytes + states.bytes // 8 / 4
