"""What every engine kind keeps: the rows of a batch are those that each slot has alone.

For a further kind, call the functions `check_...` with its engines of the tiny bundles of both families.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import InvalidInput
from antiphon.runtime.bundle.specs import StageEntry
from antiphon.runtime.engines.base import Engine
from antiphon.runtime.engines.batch_rows import join_rows
from antiphon.runtime.states.pool import Slot, Snapshot, StatePool

TOLERANCE = 5e-6
"""Largest error of an output of a row, relative to its largest magnitude, where the kind is not exact."""
STATE_TOLERANCE = 4 * TOLERANCE
"""The same of a state: between the layers of a vocoder rounding is larger than in its sound."""
PREFILLS = (1, 3, 7, 250)
"""Tokens of a slot's first run; the last is near the end of the smallest capacity class."""
CAPACITY = 1200

Feeds = dict[str, np.ndarray]


def row_feeds(entry: StageEntry, tokens: int, length: int, noise: np.random.Generator) -> Feeds:
    """Feeds of one row from the entry alone: `tokens` new tokens (or frames) after `length`;
    every index names each token at most once.
    """
    index = {spec.shape[0]: spec.name for spec in entry.inputs if spec.name.endswith("_index")}
    sizes = {"batch": 1, "tokens": tokens, "frames": tokens, "rows": 1} | {
        symbol: tokens // 2 for symbol in index if symbol != "rows"
    }
    ids = min(
        value
        for name, value in entry.interface.constants.items()
        if name in ("vocab_size", "codebook_size", "text_vocab_size")
    )
    feeds: Feeds = {}
    for spec in entry.inputs:
        shape = [axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape]
        if spec.dtype == "bool":
            feeds[spec.name] = np.zeros(shape, bool)
        elif spec.dtype == "int64":
            feeds[spec.name] = noise.integers(0, ids, shape)
        else:
            feeds[spec.name] = noise.standard_normal(shape).astype(np.float32)
    known = {
        "positions": length + np.broadcast_to(np.arange(tokens, dtype=np.float32), (3, 1, tokens)),
        "query_length": np.array([tokens]),
        "past_length": np.array([length]),
        "top_k": np.array([0]),
        **{name: np.ones(1, np.float32) for name in ("top_p", "repetition_penalty")},
        **{
            name: np.zeros(shape, np.float32)
            for name in ("temperature", "noise")
            if (shape := feeds[name].shape if name in feeds else ())
        },
    }
    feeds |= {name: values for name, values in known.items() if name in feeds}
    for name in index.values():
        feeds[name] = np.array([tokens - 1]) if name == "output_index" else np.arange(len(feeds[name]))
    return feeds


@dataclass
class _Pair:
    """A slot of the pool and the slot of a pool of one row that had the same runs."""

    slot: Slot
    alone: Slot
    marks: list[tuple[Snapshot, Snapshot]] = field(default_factory=list)


def check_slots(engine: Engine, rows: int, seed: int, steps: int) -> None:
    """Up to `rows` slots of unlike lengths, allocated, run together,
    put back and freed in an order drawn from `seed`, equal single rows.
    """
    draw, noise = random.Random(seed), np.random.default_rng(seed)
    pool = engine.new_states(rows, CAPACITY)
    pairs: list[_Pair] = []
    for _ in range(steps):
        if len(pairs) < rows and (not pairs or draw.random() < 0.5):
            pairs.append(_Pair(pool.allocate(), engine.new_states(1, CAPACITY).allocate()))
            _check_clean(pairs[-1].slot)
            _run(
                engine,
                pairs[-1:],
                draw.choice(PREFILLS if _has_tokens(engine.entry) else PREFILLS[:3]),
                noise,
            )
        chosen = draw.sample(pairs, draw.randint(1, len(pairs)))
        if draw.random() < 0.5:
            by_slot = {pair.slot: pair for pair in chosen}
            chosen = [by_slot[slot] for slot in pool.order([pair.slot for pair in chosen])]
        for _ in range(draw.randint(1, 3)):
            _run(engine, chosen, 1, noise)
        if engine.entry.capabilities.chunked_batch:
            _run(engine, chosen, draw.randint(2, 4), noise)
        pair = draw.choice(pairs)
        if draw.random() < 0.3:
            pair.marks.append((pair.slot.snapshot(), pair.alone.snapshot()))
        elif pair.marks and draw.random() < 0.5:
            for slot, snapshot in zip((pair.slot, pair.alone), pair.marks.pop(), strict=True):
                slot.restore(snapshot)
        if draw.random() < 0.3:
            _spoil(pair.slot)
            pool.free(pair.slot)
            pairs.remove(pair)


def check_first_runs(engine: Engine) -> None:
    """Rows of unlike numbers of tokens may share their first run, padded, and go on together."""
    noise, lengths = np.random.default_rng(0), (5, 2, 7)
    pool = engine.new_states(3, CAPACITY)
    pairs = [_Pair(pool.allocate(), engine.new_states(1, CAPACITY).allocate()) for _ in lengths]
    feeds = [row_feeds(engine.entry, tokens, 0, noise) for tokens in lengths]
    for pair, tokens in zip(pairs, lengths, strict=True):
        pair.slot.reserve(max(lengths))  # padding rows lie behind the visible ones until the next run
        pair.alone.reserve(tokens)
    found = engine.run(join_rows(engine.entry.interface, feeds), [pair.slot for pair in pairs])
    for row, (pair, tokens) in enumerate(zip(pairs, lengths, strict=True)):
        for name, expected in engine.run(feeds[row], [pair.alone]).items():
            of_row = found[name][row : row + 1]
            _compare(
                engine.entry,
                name,
                of_row[:, :tokens] if expected.shape[1:2] == (tokens,) else of_row,
                expected,
                TOLERANCE,
            )
        pair.slot.advance(tokens)
        pair.alone.advance(tokens)
    for _ in range(3):
        _run(engine, pairs, 1, noise)


def check_batches(engine: Engine) -> None:
    """A batch of a stage without states equals its rows by themselves."""
    noise = np.random.default_rng(0)
    for rows in (1, 3, 8):
        feeds = [row_feeds(engine.entry, 1, 0, noise) for _ in range(rows)]
        found = engine.run(join_rows(engine.entry.interface, feeds))
        for row, alone in enumerate(feeds):
            for name, expected in engine.run(alone).items():
                _compare(engine.entry, name, found[name][row : row + 1], expected, TOLERANCE)


def check_refusals(engine: Engine) -> None:
    """What the capabilities rule out raises before anything runs: lengths and states stay as they are."""
    entry, noise = engine.entry, np.random.default_rng(0)
    pool = engine.new_states(2, CAPACITY)
    slots = [pool.allocate(), pool.allocate()]
    _advance(engine, pool, slots, 3, noise)
    before = [[slot.past(state.name).copy() for state in entry.states] for slot in slots]
    both = [row_feeds(entry, 3, 3, noise) for _ in slots]
    for slot in slots:
        slot.reserve(3)
    if not entry.capabilities.chunked_batch:
        with pytest.raises(
            InvalidInput,
            match=f"Stage {entry.name} takes 2 rows of several tokens only where all are at their start",
        ):
            engine.run(join_rows(entry.interface, both), slots)
    for given in ((), slots[:1]):
        with pytest.raises(
            InvalidInput, match=f"was given slots for {len(given)} rows and feeds for 2, expected one slot"
        ):
            engine.run(join_rows(entry.interface, both), given)
    with pytest.raises(InvalidInput, match="was given slots for 2 rows and feeds for 1, expected one slot"):
        engine.run(both[0], slots)
    for slot, states in zip(slots, before, strict=True):
        assert all(
            np.array_equal(slot.past(state.name), copy)
            for state, copy in zip(entry.states, states, strict=True)
        )


def _has_tokens(entry: StageEntry) -> bool:
    return any("tokens" in spec.shape for spec in entry.inputs)


def _advance(
    engine: Engine, pool: StatePool, slots: list[Slot], tokens: int, noise: np.random.Generator
) -> None:
    """A first run of several rows with several tokens each, which every kind takes."""
    for slot in slots:
        slot.reserve(tokens)
    slots = pool.order(slots)
    engine.run(
        join_rows(engine.entry.interface, [row_feeds(engine.entry, tokens, 0, noise) for _ in slots]), slots
    )
    for slot in slots:
        slot.advance(tokens)


def _run(engine: Engine, pairs: list[_Pair], tokens: int, noise: np.random.Generator) -> None:
    """Run `pairs` as one batch and alone, and compare outputs and states."""
    interface = engine.entry.interface
    feeds = [row_feeds(engine.entry, tokens, pair.slot.length, noise) for pair in pairs]
    for pair in pairs:
        pair.slot.reserve(tokens)
        pair.alone.reserve(tokens)
    found = engine.run(join_rows(interface, feeds), [pair.slot for pair in pairs])
    for row, pair in enumerate(pairs):
        for name, expected in engine.run(feeds[row], [pair.alone]).items():
            _compare(engine.entry, name, found[name][row : row + 1], expected, TOLERANCE)
        pair.slot.advance(tokens)
        pair.alone.advance(tokens)
        for state in interface.states:
            used = tuple(
                slice(pair.slot.length) if axis == "capacity" else slice(None) for axis in state.shape
            )
            _compare(
                engine.entry,
                state.name,
                pair.slot.past(state.name)[used],
                pair.alone.past(state.name)[used],
                STATE_TOLERANCE,
            )


def _compare(entry: StageEntry, name: str, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    if entry.capabilities.rows_exact or not np.issubdtype(expected.dtype, np.floating):
        np.testing.assert_array_equal(found, expected, err_msg=f"{entry.name}: {name}")
    elif expected.size:
        np.testing.assert_allclose(
            found,
            expected,
            rtol=0,
            atol=tolerance * float(np.abs(expected).max()),
            err_msg=f"{entry.name}: {name}",
        )


def _check_clean(slot: Slot) -> None:
    assert slot.length == 0
    assert not any(slot.past(spec.name).any() or slot.present(spec.name).any() for spec in slot.pool.specs)


def _spoil(slot: Slot) -> None:
    """Leave values behind that would be seen in every result that read one of them."""
    for spec in slot.pool.specs:
        slot.past(spec.name)[...] = slot.present(spec.name)[...] = np.nan
