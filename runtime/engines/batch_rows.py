"""Feeds of several rows from feeds of one row each, and back.

A tensor belongs to rows by its axis `batch`, or by an index: an int64 input NAME_index [symbol] holds flat
places row * tokens + token, and all tensors with that symbol follow it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..bundle.specs import StageInterface, TensorSpec
from .checks import axis_sizes

Feeds = Mapping[str, np.ndarray]


def join_rows(interface: StageInterface, rows: Sequence[Feeds]) -> dict[str, np.ndarray]:
    """One batch of `rows`, each feeds with a batch of one.

    Rows of fewer tokens get zeros behind them; `query_length` tells them apart.
    """
    tokens = max(axis_sizes(interface.inputs, feeds).get("tokens", 1) for feeds in rows)
    index = _index_inputs(interface)
    joined: dict[str, np.ndarray] = {}
    for spec in interface.inputs:
        parts = [_padded(spec, feeds[spec.name], tokens) for feeds in rows]
        if spec.name in index.values():
            parts = [part + row * tokens for row, part in enumerate(parts)]
        axis = _row_axis(spec, index)
        joined[spec.name] = parts[0] if axis is None else np.concatenate(parts, axis=axis)
    return joined


def split_rows(interface: StageInterface, feeds: Feeds) -> list[dict[str, np.ndarray]]:
    """The feeds of every row of the batch by itself, without padding tokens."""
    sizes, index = axis_sizes(interface.inputs, feeds), _index_inputs(interface)
    tokens = sizes.get("tokens", 1)
    rows: list[dict[str, np.ndarray]] = [{} for _ in range(sizes["batch"])]
    for spec in interface.inputs:
        for row, own in enumerate(rows):
            part = _of_row(spec, feeds[spec.name], row, index, feeds, tokens)
            if "tokens" in spec.shape and "query_length" in feeds:
                part = np.take(part, range(int(feeds["query_length"][row])), axis=spec.shape.index("tokens"))
            own[spec.name] = part - row * tokens if spec.name in index.values() else part
    return rows


def join_outputs(interface: StageInterface, feeds: Feeds, rows: Sequence[Feeds]) -> dict[str, np.ndarray]:
    """The outputs of the batch `feeds` from those of its rows (see split_rows),
    with zeros for padding tokens.
    """
    index, tokens = _index_inputs(interface), axis_sizes(interface.inputs, feeds).get("tokens", 1)
    joined: dict[str, np.ndarray] = {}
    for spec in interface.outputs:
        if spec.name not in rows[0]:
            continue
        axis = _row_axis(spec, index)
        assert axis is not None, f"the output {spec.name} belongs to no row"
        values = np.concatenate([_padded(spec, row[spec.name], tokens) for row in rows], axis=axis)
        if spec.shape[axis] != "batch":
            # The rows come one after another; in the batch they may be interleaved.
            order = np.argsort(feeds[index[str(spec.shape[axis])]] // tokens, kind="stable")
            values = np.take(values, np.argsort(order), axis=axis)
        joined[spec.name] = values
    return joined


def _index_inputs(interface: StageInterface) -> dict[str, str]:
    """The input that holds flat places, by the symbol of its axis."""
    return {
        str(spec.shape[0]): spec.name
        for spec in interface.inputs
        if spec.name.endswith("_index") and len(spec.shape) == 1
    }


def _row_axis(spec: TensorSpec, index: Mapping[str, str]) -> int | None:
    return next((place for place, axis in enumerate(spec.shape) if axis == "batch" or axis in index), None)


def _padded(spec: TensorSpec, values: np.ndarray, tokens: int) -> np.ndarray:
    missing = [
        (0, tokens - values.shape[place] if axis == "tokens" else 0) for place, axis in enumerate(spec.shape)
    ]
    return np.pad(values, missing) if any(behind for _, behind in missing) else values


def _of_row(
    spec: TensorSpec, values: np.ndarray, row: int, index: Mapping[str, str], feeds: Feeds, tokens: int
) -> np.ndarray:
    axis = _row_axis(spec, index)
    if axis is None:
        return values
    if spec.shape[axis] == "batch":
        return np.take(values, [row], axis=axis)
    return np.take(values, np.flatnonzero(feeds[index[str(spec.shape[axis])]] // tokens == row), axis=axis)
