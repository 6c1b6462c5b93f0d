"""A pool whose slots lie side by side, for engines that take the rows of a run as one array a state.

Slots of one run share arrays and so a capacity. The pool therefore has capacity classes; a slot moves to a
larger class when it grows, or when it runs together with a longer one.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np

from ..bundle.specs import StateSpec
from .arrays import Generation, StateArrays
from .pool import BLOCK, UNLIMITED, Slot, StatePool, StateRows

STEP = 4
"""Ratio of two neighbouring capacity classes."""


class ContiguousPool(StatePool):
    """Up to `rows` slots of up to `capacity` rows of context each.

    The capacity classes are 256, 1,024, 4,096 ... rows, the last one `capacity`. The arrays of a class have
    places for a power of two of slots, at most `rows`, and are dropped with their last slot. A slot that
    joins a run, leaves it or grows moves one slot where the rows of the run stand in the order that `order`
    gives; slots that keep running together do not move.
    """

    def __init__(self, specs: Sequence[StateSpec], rows: int, capacity: int = UNLIMITED) -> None:
        assert all(spec.batch_axis == 0 for spec in specs), "rows lie side by side on the first axis alone"
        super().__init__(specs, rows, capacity)
        self.moves = 0
        """Copies of one slot's states that were made so far."""
        self._classes: dict[int, _Class] = {}

    @property
    def bytes(self) -> int:
        """Memory held, in bytes, free places of a class included."""
        return sum(found.arrays.bytes for found in self._classes.values())

    def free(self, slot: Slot) -> None:
        """Give the states of `slot` back; it must not be used any more."""
        found, row = self._class(slot), slot.row
        super().free(slot)
        found.leave(row)
        self._drop_empty()

    def gather(self, slots: Sequence[Slot]) -> StateRows:
        """The states of a run over `slots`, in their order:
        moves what does not lie side by side in one class yet.
        """
        assert all(slot.pool is self for slot in slots) and len(set(map(id, slots))) == len(slots), (
            "the slots of a run are distinct and of one pool"
        )
        if len(slots) == 1:
            return slots[0]
        arrays, first = slots[0].arrays, slots[0].row
        if not all(slot.arrays is arrays and slot.row == first + index for index, slot in enumerate(slots)):
            home = self._shared_class(slots)
            for slot in slots:
                self._enter(slot, home)
            first = max(
                range(home.arrays.rows - len(slots) + 1),
                key=lambda start: sum(slot.row == start + index for index, slot in enumerate(slots)),
            )
            for index, slot in enumerate(slots):
                if slot.row != first + index:
                    self._exchange(slot, home, first + index)
            self._drop_empty()
        for slot in slots[1:]:
            if slot.parity != slots[0].parity:
                slot.arrays.change_side(slot.row, slot.parity)
                slot.flip()
                self.moves += 1
        return SlotGroup(slots)

    def order(self, slots: Sequence[Slot]) -> list[Slot]:
        """The order of `slots` in which `gather` moves the fewest of them."""
        home = self._shared_class(slots)
        inside = {slot.row: slot for slot in slots if slot.arrays is home.arrays}
        count = len(slots)
        spans = [range(first, first + count) for first in range(max(1, home.arrays.rows - count + 1))]
        best = max(spans, key=lambda span: sum(row in inside for row in span))
        staying = {row: slot for row, slot in inside.items() if row in best}
        others = iter([slot for slot in slots if slot not in staying.values()])
        return [staying[row] if row in staying else next(others) for row in best]

    def grow(self, slot: Slot, needed: int) -> None:
        """Move `slot` to the smallest class that holds `needed` rows of context."""
        capacity = BLOCK
        while capacity < needed:
            capacity *= STEP
        self._enter(slot, self._class_of(min(capacity, self.capacity)))
        self._drop_empty()

    def _new_slot(self) -> Slot:
        self._drop_empty()
        home = self._class_of(min(BLOCK, self.capacity))
        slot = Slot(self, home.arrays, home.new_place(self.rows))
        home.enter(slot)
        return slot

    def _class(self, slot: Slot) -> _Class:
        return self._classes[slot.arrays.capacity]

    def _class_of(self, capacity: int) -> _Class:
        if capacity not in self._classes:
            self._classes[capacity] = _Class(StateArrays(self.specs, 1, capacity))
        return self._classes[capacity]

    def _drop_empty(self) -> None:
        self._classes = {
            capacity: found
            for capacity, found in self._classes.items()
            if any(slot is not None for slot in found.slots)
        }

    def _shared_class(self, slots: Sequence[Slot]) -> _Class:
        """Of the classes that hold what every slot has reserved, the one with most of `slots`;
        of equal ones the smallest.
        """
        needed = max(max(slot.length, slot.reserved) for slot in slots)
        fitting = {
            slot.arrays.capacity for slot in slots if slot.arrays.capacity >= needed or not slot.arrays.grows
        }
        return self._classes[
            max(
                fitting,
                key=lambda capacity: (sum(slot.arrays.capacity == capacity for slot in slots), -capacity),
            )
        ]

    def _enter(self, slot: Slot, home: _Class) -> None:
        """Move `slot` to a free place of the class `home`, unless it is there."""
        if slot.arrays is home.arrays:
            return
        old = self._class(slot)
        row = home.new_place(self.rows)
        home.arrays.put(row, slot.parity, slot.length, slot.arrays.take(slot.row, slot.parity, slot.length))
        old.leave(slot.row)
        slot.move(home.arrays, row)
        home.enter(slot)
        self.moves += 1

    def _exchange(self, slot: Slot, home: _Class, row: int) -> None:
        """Move `slot` to `row` of its class, and whatever slot is there to the row that it leaves."""
        other, before = home.slots[row], slot.row
        taken = [
            (moved, home.arrays.take(moved.row, moved.parity, moved.length))
            for moved in (slot, other)
            if moved is not None
        ]
        home.leave(slot.row)
        if other is not None:
            home.leave(other.row)
        for (moved, states), target in zip(taken, (row, before), strict=False):
            home.arrays.put(target, moved.parity, moved.length, states)
            moved.move(home.arrays, target)
            home.enter(moved)
            self.moves += 1


class _Class:
    """The arrays of one capacity, and which slot has which place in them."""

    def __init__(self, arrays: StateArrays) -> None:
        self.arrays = arrays
        self._places: list[weakref.ref[Slot] | None] = [None]
        self._used = [False]

    @property
    def slots(self) -> list[Slot | None]:
        """By place; None where it is free, as it is when its slot has died."""
        return [None if reference is None else reference() for reference in self._places]

    def new_place(self, most: int) -> int:
        """A free place that holds zeros."""
        slots = self.slots
        if None not in slots:
            lengths = [0 if slot is None else slot.length for slot in slots]
            self.arrays.resize(min(most, 2 * len(slots)), self.arrays.capacity, lengths)
            added = self.arrays.rows - len(slots)
            self._places += [None] * added
            self._used += [False] * added
            return len(slots)
        row = slots.index(None)
        if self._used[row]:
            self.arrays.clear(row)
        return row

    def enter(self, slot: Slot) -> None:
        """Note that `slot` is in its place."""
        self._places[slot.row], self._used[slot.row] = weakref.ref(slot), True

    def leave(self, row: int) -> None:
        """Note that the place `row` is free."""
        self._places[row] = None


class SlotGroup:
    """Several slots of one class, side by side and of one parity: the StateRows of a run."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        self._slots, self._arrays, self.place = (
            tuple(slots),
            slots[0].arrays,
            (slots[0].row, len(slots), slots[0].parity),
        )

    @property
    def generation(self) -> Generation:
        """See StateRows."""
        return self._arrays.generation

    def past(self, name: str) -> np.ndarray:
        """The array that the next run reads, one row for each slot."""
        first, count, parity = self.place
        return self._arrays.array(name, parity, first, count)

    def present(self, name: str) -> np.ndarray:
        """The array that the next run writes; for kv the one it reads."""
        first, count, parity = self.place
        return self._arrays.array(name, 1 - parity, first, count)

    def flip(self) -> None:
        """What was written becomes what is read, for every slot."""
        for slot in self._slots:
            slot.flip()
