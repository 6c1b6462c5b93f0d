"""One stage's engine against its module, on the same calls:
pairs of what the module gives and what the engine gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ...graphs.layers.decoder_specs import greedy_sampling, sampling_inputs
from ...graphs.module_engine.engine import ModuleEngine
from ...graphs.module_engine.loop import run_loop
from ...plugins.sample_token.reference import sample_token
from ...runtime.engines.base import Engine
from .conversation_calls import Feeds, Stream

Pair = tuple[str, np.ndarray, np.ndarray]
"""Name, reference, found."""
TOKEN, LOGITS = "token", "logits"


def compare(engine: Engine, module: ModuleEngine, streams: Iterable[Stream]) -> list[Pair]:
    """The pairs of all calls of all `streams`, in order, and of the states at the end of each stream."""
    pairs: list[Pair] = []
    for stream in streams:
        pairs += (
            _compare_loop(engine, module, stream)
            if module.runner.stage.loop
            else _compare_stream(engine, module, stream)
        )
    return pairs


def new_rows(feeds: Feeds) -> int:
    """Rows that a call adds to the states' length."""
    return (
        int(feeds["query_length"][0])
        if "query_length" in feeds
        else feeds["codes"].shape[1]
        if "codes" in feeds
        else 0
    )


def _compare_stream(engine: Engine, module: ModuleEngine, stream: Stream) -> list[Pair]:
    specs, states = engine.entry.outputs, engine.entry.states
    rows = sum(new_rows(feeds) for feeds in stream)
    slots = [made.new_states().allocate() for made in (engine, module)] if states else []
    for slot in slots:
        slot.reserve(rows)
    pairs: list[Pair] = []
    for feeds in stream:
        found, expected = engine.run(feeds, slots[:1]), module.run(feeds, slots[1:])
        for slot in slots:
            slot.advance(new_rows(feeds))
        for spec in specs:
            if spec.name == TOKEN:
                pairs.append((TOKEN, _sampled(feeds, found[LOGITS]), found[TOKEN]))
            elif spec.dtype == "float32":
                pairs.append((spec.name, expected[spec.name], found[spec.name]))
            else:
                pairs.append((spec.name, *until_wrong(expected[spec.name], found[spec.name])))
    for state in states:
        used = tuple(slice(rows) if axis == "capacity" else slice(None) for axis in state.shape)
        found_state, expected_state = (slot.past(state.name)[used].copy() for slot in slots)
        pairs.append((f"states ({state.kind})", expected_state, found_state))
    return pairs


def until_wrong(expected: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The codes [codes] of both, int64 [batch, frames, codebooks], that are judged:
    of every frame those to its first wrong one.
    """
    right = np.logical_and.accumulate(expected == found, axis=-1)
    judged = np.concatenate([np.ones_like(right[..., :1]), right[..., :-1]], axis=-1)
    return expected[judged], found[judged]


def _compare_loop(engine: Engine, module: ModuleEngine, stream: Stream) -> list[Pair]:
    loop = module.runner.stage.loop
    assert loop is not None
    pairs: list[Pair] = []
    for feeds in stream:
        found = engine.run(feeds)
        expected = run_loop(module.runner, feeds, found[loop.gathered])
        pairs += [(name, expected[name], found[name]) for name in (*loop.stacked, loop.summed[0])]
        drawn = [
            _sampled_step(
                feeds, found[LOGITS][:, step], {name: feeds[name][:, step] for name in loop.columns}
            )
            for step in range(loop.steps)
        ]
        pairs.append((TOKEN, np.stack([feeds[loop.carried[0]], *drawn], axis=1), found[loop.gathered]))
    return pairs


def _sampled_step(feeds: Feeds, logits: np.ndarray, columns: Feeds) -> np.ndarray:
    """The values int64 [batch] that belong to one step's own `logits` [batch, vocab];
    a loop neither penalises nor suppresses.
    """
    return _sampled(greedy_sampling(*logits.shape) | feeds | columns, logits)


def _sampled(feeds: Feeds, logits: np.ndarray) -> np.ndarray:
    """The tokens int64 [rows] that belong to an engine's own `logits` [rows, vocab];
    -1, which no engine gives, where they are not finite.
    """
    settings = [feeds[spec.name] for spec in sampling_inputs(logits.shape[1])]
    tokens = np.full(len(logits), -1, np.int64)
    rows = np.isfinite(logits).all(axis=1)
    tokens[rows] = sample_token(logits[rows].astype(np.float64), *(setting[rows] for setting in settings))
    return tokens


def errors(pairs: Sequence[Pair]) -> tuple[float, float, float]:
    """Worst and mean error, relative to the largest magnitude of the reference, and the cosine of both."""
    expected = np.concatenate([pair[1].ravel() for pair in pairs]).astype(np.float64)
    found = np.concatenate([pair[2].ravel() for pair in pairs]).astype(np.float64)
    scale = max(float(np.abs(expected).max(initial=0.0)), np.finfo(np.float32).tiny)
    difference = np.abs(expected - found) / scale
    norms = float(np.linalg.norm(expected) * np.linalg.norm(found))
    cosine = float(expected @ found) / norms if norms else float(np.array_equal(expected, found))
    return float(difference.max(initial=0.0)), float(difference.mean()) if difference.size else 0.0, cosine
