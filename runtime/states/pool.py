"""A pool of slots: the states of one stage for several streams, allocated, grown,
copied and restored by their description alone.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..bundle.errors import Busy, ContextFull
from ..bundle.specs import StateSpec
from .arrays import Generation, StateArrays

BLOCK = 256
"""Rows by which the capacity of kv states is rounded up."""
UNLIMITED = 2**31
"""The capacity of a pool whose caller sets no limit."""


@dataclass(frozen=True)
class Snapshot:
    """A point to come back to: the number of kv rows, and copies of the states that cannot be cropped."""

    length: int
    copies: dict[str, np.ndarray]


class StateRows(Protocol):
    """The states that one run reads and writes:
    those of a slot, or of several slots whose rows lie side by side.
    """

    @property
    def generation(self) -> Generation:
        """Identity of the arrays."""

    @property
    def place(self) -> tuple[int, int, int]:
        """Where the rows lie in these arrays: first row, number of rows, parity."""

    def past(self, name: str) -> np.ndarray:
        """The array that the next run reads, one row for each slot."""

    def present(self, name: str) -> np.ndarray:
        """The array that the next run writes; for kv the one it reads."""

    def flip(self) -> None:
        """What was written becomes what is read; an engine calls it after a run."""


class Slot:
    """The states of one stage for one stream; a pool makes it.

    Its row goes back to the pool by `pool.free(slot)` or when the slot dies.
    """

    def __init__(self, pool: StatePool, arrays: StateArrays, row: int = 0) -> None:
        self.pool = pool
        self.length = 0
        """Rows of context that the states hold."""
        self.reserved = 0
        """Rows of context for which there is room by the last `reserve`."""
        self.parity = 0
        self._home: tuple[StateArrays, int] | None = (arrays, row)

    @property
    def arrays(self) -> StateArrays:
        """The arrays in which the slot has a row."""
        return self._at[0]

    @property
    def row(self) -> int:
        """Its row in `arrays`."""
        return self._at[1]

    @property
    def capacity(self) -> int:
        """Rows of context that fit before the arrays grow."""
        return self.arrays.capacity

    @property
    def generation(self) -> Generation:
        """See StateRows."""
        return self._at[0].generation

    @property
    def place(self) -> tuple[int, int, int]:
        """See StateRows."""
        return self._at[1], 1, self.parity

    @property
    def bytes(self) -> int:
        """Memory of the slot's rows, in bytes."""
        return self.arrays.bytes // self.arrays.rows

    def past(self, name: str) -> np.ndarray:
        """The state `name` with a batch of one, as the next run reads it."""
        return self.arrays.array(name, self.parity, self.row, 1)

    def present(self, name: str) -> np.ndarray:
        """The array with a batch of one that the next run writes; for kv the one it reads."""
        return self.arrays.array(name, 1 - self.parity, self.row, 1)

    def flip(self) -> None:
        """What was written becomes what is read; an engine calls it after a run."""
        if self.arrays.swaps:
            self.parity = 1 - self.parity

    def reserve(self, rows: int) -> None:
        """Make room for `rows` more rows.

        Raises ContextFull beyond the pool's capacity, before anything changes.
        """
        needed, limit = self.length + rows, self.pool.capacity
        if needed > limit:
            raise ContextFull(
                f"The context holds {limit} rows and {needed} are needed; shorten the conversation."
            )
        self.reserved = needed
        if needed > self.arrays.capacity and self.arrays.grows:
            self.pool.grow(self, needed)

    def advance(self, rows: int) -> None:
        """Count `rows` rows that a run has written."""
        assert self.length + rows <= self.pool.capacity
        self.length += rows

    def snapshot(self) -> Snapshot:
        """Remember this point; free for kv states, one copy for each other state."""
        return Snapshot(self.length, self.arrays.copies(self.row, self.parity))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot`, which this slot made.

        kv rows after it are forgotten; it must not lie ahead.
        """
        assert snapshot.length <= self.length
        self.length = snapshot.length
        for name, copy in snapshot.copies.items():
            self.past(name)[...] = copy

    def move(self, arrays: StateArrays, row: int) -> None:
        """Note that the states lie in `row` of `arrays` now; the pool has copied them."""
        self._home = (arrays, row)

    def end(self) -> None:
        """Note that the row belongs to the pool again."""
        self._home = None

    @property
    def _at(self) -> tuple[StateArrays, int]:
        assert self._home is not None, "the slot was freed"
        return self._home


class StatePool:
    """Up to `rows` slots of up to `capacity` rows of context each, with arrays of their own for every slot.

    The capacity of a slot grows in blocks, by an eighth at a time: a long conversation holds little more than
    its rows, and its growing copies every row about nine times in all. A slot without kv states never grows.
    """

    def __init__(self, specs: Sequence[StateSpec], rows: int = 1, capacity: int = UNLIMITED) -> None:
        self.specs = tuple(specs)
        self.rows, self.capacity = rows, capacity
        self._slots: list[weakref.ref[Slot]] = []

    @property
    def slots(self) -> list[Slot]:
        """The slots that are allocated."""
        return [slot for reference in self._slots if (slot := reference()) is not None]

    @property
    def bytes(self) -> int:
        """Memory held by all slots, in bytes."""
        return sum(slot.bytes for slot in self.slots)

    def allocate(self) -> Slot:
        """A slot of length 0 whose states are zeros. Raises Busy where all are in use."""
        self._slots = [weakref.ref(slot) for slot in self.slots]
        if len(self._slots) >= self.rows:
            raise Busy(f"All {self.rows} slots of the pool are in use; free one or make a pool of more.")
        slot = self._new_slot()
        self._slots.append(weakref.ref(slot))
        return slot

    def free(self, slot: Slot) -> None:
        """Give the states of `slot` back; it must not be used any more."""
        assert slot.pool is self and slot in self.slots, "the slot is none of this pool"
        self._slots = [weakref.ref(other) for other in self.slots if other is not slot]
        slot.end()

    def gather(self, slots: Sequence[Slot]) -> StateRows:
        """The states of a run over `slots`, in their order. Here a run has one slot."""
        assert len(slots) == 1 and slots[0].pool is self
        return slots[0]

    def order(self, slots: Sequence[Slot]) -> list[Slot]:
        """The order of `slots` in which `gather` moves the fewest of them."""
        return list(slots)

    def grow(self, slot: Slot, needed: int) -> None:
        """Give `slot` room for `needed` rows of context."""
        wanted = max(needed, slot.arrays.capacity * 9 // 8)
        slot.arrays.resize(1, min(-(-wanted // BLOCK) * BLOCK, self.capacity), [slot.length])

    def _new_slot(self) -> Slot:
        return Slot(self, StateArrays(self.specs, 1, min(BLOCK, self.capacity)))
