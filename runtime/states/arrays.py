"""The arrays of one stage's states, with a row for each of several streams and one capacity for all rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..bundle.specs import StateSpec


class Generation:
    """Identity of one set of arrays:
    an engine keeps what it prepares for arrays in a weak dictionary under their generation.

    It dies when one of the arrays is replaced, before that happens, and with the arrays.
    """

    __slots__ = ("__weakref__",)


class StateArrays:
    """One array for each kv state and two for each other state, all zeros at first.

    kv states are written in place. Of the two arrays of another state a run reads one (past) and writes the
    other (present); the parity of a slot, 0 or 1, says which one its next run reads.
    """

    def __init__(self, specs: Sequence[StateSpec], rows: int, capacity: int) -> None:
        self.specs = tuple(specs)
        self.rows, self.capacity = rows, capacity
        self.generation = Generation()
        self._kv = {spec.name: self._zeros(spec) for spec in self.specs if spec.kind == "kv"}
        self._pairs = {
            spec.name: [self._zeros(spec), self._zeros(spec)] for spec in self.specs if spec.kind != "kv"
        }
        self._by_name = {spec.name: spec for spec in self.specs}

    @property
    def grows(self) -> bool:
        """Whether any state has an axis `capacity`."""
        return bool(self._kv)

    @property
    def swaps(self) -> bool:
        """Whether any state has two arrays."""
        return bool(self._pairs)

    @property
    def bytes(self) -> int:
        """Memory held, in bytes."""
        return sum(
            array.nbytes
            for array in (*self._kv.values(), *(array for pair in self._pairs.values() for array in pair))
        )

    def array(self, name: str, side: int, first: int, count: int) -> np.ndarray:
        """`count` rows from row `first` of the state `name`:
        a view, or the array itself where that is all of it.

        `side` chooses one of the two arrays of a state that is not kv.
        """
        array = self._kv[name] if name in self._kv else self._pairs[name][side]
        if count == self.rows:
            return array
        return array[(slice(None),) * self._by_name[name].batch_axis + (slice(first, first + count),)]

    def copies(self, row: int, parity: int) -> dict[str, np.ndarray]:
        """Copies of the states of `row` that cannot be cropped: all but kv, each with a batch of one."""
        return {name: self.array(name, parity, row, 1).copy() for name in self._pairs}

    def take(self, row: int, parity: int, length: int) -> dict[str, np.ndarray]:
        """Copies of all that a slot in `row` remembers:
        `length` rows of its kv states, and its other states.
        """
        return {name: self._used(name, 0, row, length).copy() for name in self._kv} | self.copies(row, parity)

    def put(self, row: int, parity: int, length: int, taken: dict[str, np.ndarray]) -> None:
        """Write what `take` returned, of arrays of any capacity, into `row`."""
        for name, values in taken.items():
            self._used(name, parity, row, length)[...] = values

    def change_side(self, row: int, parity: int) -> None:
        """Let a slot in `row` whose parity was `parity` have the other one."""
        for name in self._pairs:
            self.array(name, 1 - parity, row, 1)[...] = self.array(name, parity, row, 1)

    def clear(self, row: int) -> None:
        """Fill `row` with zeros."""
        for spec in self.specs:
            for side in (0,) if spec.kind == "kv" else (0, 1):
                self.array(spec.name, side, row, 1)[...] = 0

    def resize(self, rows: int, capacity: int, lengths: Sequence[int]) -> None:
        """Replace the arrays by larger ones that keep every row, of kv states the first `lengths[row]` rows.

        The old arrays go one by one, so that never more than one state is held twice.
        """
        assert rows >= self.rows and capacity >= self.capacity and len(lengths) == self.rows
        self.generation = Generation()  # first: what engines keep under the old one holds the old arrays
        old_rows = self.rows
        self.rows, self.capacity = rows, capacity
        for spec in self.specs:
            if spec.kind == "kv":
                grown = self._zeros(spec)
                for row, length in enumerate(lengths):
                    used = _index(spec, row, length)
                    grown[used] = self._kv[spec.name][used]
                self._kv[spec.name] = grown
            elif rows > old_rows:
                for side in (0, 1):
                    grown = self._zeros(spec)
                    grown[(slice(None),) * spec.batch_axis + (slice(old_rows),)] = self._pairs[spec.name][
                        side
                    ]
                    self._pairs[spec.name][side] = grown

    def _used(self, name: str, side: int, row: int, length: int) -> np.ndarray:
        array = self._kv[name] if name in self._kv else self._pairs[name][side]
        return array[_index(self._by_name[name], row, length)]

    def _zeros(self, spec: StateSpec) -> np.ndarray:
        sizes = {"batch": self.rows, "capacity": self.capacity}
        return np.zeros(
            [axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape], np.dtype(spec.dtype)
        )


def _index(spec: StateSpec, row: int, length: int) -> tuple[slice, ...]:
    """The first `length` rows of context of row `row` of the batch."""
    slices = {"batch": slice(row, row + 1), "capacity": slice(length)}
    return tuple(slice(None) if isinstance(axis, int) else slices[axis] for axis in spec.shape)
