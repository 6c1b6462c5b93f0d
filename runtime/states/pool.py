"""The states of one stream: allocated, grown, copied and restored by their description alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle.errors import ContextFull
from ..bundle.specs import StateSpec

BLOCK = 256
"""Rows by which the capacity of kv states is rounded up."""


@dataclass(frozen=True)
class Snapshot:
    """A point to come back to: the number of kv rows, and copies of the states that cannot be cropped."""

    length: int
    copies: dict[str, np.ndarray]


class StateSet:
    """All states of one stage for one stream.

    kv states have one array each, written in place by the graph at row `length`; their capacity grows in blocks, by an eighth at a time,
    up to `limit` rows: a long conversation holds little more than its rows, and its growing copies every row about nine times in all.
    Other states have two arrays that swap after a run, so that nothing is copied. `cache` is a place where an engine keeps what it
    prepared for these very arrays; it is emptied when one of them is replaced.
    """

    def __init__(self, specs: Sequence[StateSpec], limit: int = 2**31, batch: int = 1) -> None:
        self.specs = tuple(specs)
        self.limit, self.batch = limit, batch
        self.length = 0
        self.parity = 0
        self.cache: dict[Any, Any] = {}
        self.capacity = min(BLOCK, limit)
        self._kv = {spec.name: self._zeros(spec) for spec in self.specs if spec.kind == "kv"}
        self._pairs = {spec.name: (self._zeros(spec), self._zeros(spec)) for spec in self.specs if spec.kind != "kv"}

    def past(self, name: str) -> np.ndarray:
        """The array that the next run reads."""
        return self._kv[name] if name in self._kv else self._pairs[name][self.parity]

    def present(self, name: str) -> np.ndarray:
        """The array that the next run writes; for kv the one it reads."""
        return self._kv[name] if name in self._kv else self._pairs[name][1 - self.parity]

    def flip(self) -> None:
        """What was written becomes what is read; an engine calls it after a run."""
        if self._pairs:
            self.parity = 1 - self.parity

    def reserve(self, rows: int) -> None:
        """Make room for `rows` more rows. Raises AntiphonError beyond `limit`, before anything changes."""
        needed = self.length + rows
        if needed > self.limit:
            raise ContextFull(f"The context holds {self.limit} rows and {needed} are needed; shorten the conversation.")
        if needed <= self.capacity or not self._kv:
            return
        wanted = max(needed, self.capacity * 9 // 8)
        self.capacity = min(-(-wanted // BLOCK) * BLOCK, self.limit)
        self.cache.clear()  # first: it keeps the old arrays, which go one by one, so that never more than one is held twice
        for spec in self.specs:
            if spec.kind == "kv":
                rows_so_far = tuple(slice(self.length) if axis == "capacity" else slice(None) for axis in spec.shape)
                grown = self._zeros(spec)
                grown[rows_so_far] = self._kv[spec.name][rows_so_far]
                self._kv[spec.name] = grown

    def advance(self, rows: int) -> None:
        """Count `rows` rows that a run has written."""
        assert self.length + rows <= self.limit
        self.length += rows

    def snapshot(self) -> Snapshot:
        """Remember this point; free for kv states, one copy for each other state."""
        return Snapshot(self.length, {name: self.past(name).copy() for name in self._pairs})

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot`. kv rows after it are forgotten; it must not lie ahead."""
        assert snapshot.length <= self.length
        self.length = snapshot.length
        for name, copy in snapshot.copies.items():
            self.past(name)[...] = copy

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        arrays = [*self._kv.values(), *(array for pair in self._pairs.values() for array in pair)]
        return sum(array.nbytes for array in arrays)

    def _zeros(self, spec: StateSpec) -> np.ndarray:
        sizes = {"batch": self.batch, "capacity": self.capacity}
        return np.zeros([axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape], np.dtype(spec.dtype))
