"""What one rendering of a chat template may spend: steps, which bound its time, and characters, which bound its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jinja2

BASE_STEPS, STEPS_A_VALUE = 200_000, 300
"""Steps of a rendering: these, as many again for every value in the messages and tools, and one for every character. A published template takes about
100 for a message, which is 5 values; a step takes up to a microsecond."""
BASE_CHARACTERS, CHARACTERS_A_CHARACTER, CHARACTERS_A_VALUE = 4 * 2**20, 64, 1024
"""Characters that a rendering may make, at most 4 bytes each. A published template makes about 6 for every character that it is given."""
DEEPEST = 100
"""Levels of lists and objects in each other; also of calls in each other."""
LARGEST_INTEGER = 1024
"""Bits of a number that a template computes."""
SMALL = 16
"""Characters that an object's head takes, counted for everything that is made."""
ESCAPED = 6
"""Characters that one character may become in JSON or in a list that is written out."""
PER_STEP = 7
"""Shift: text of 128 characters is read in about the time of a step."""

CONTAINERS: tuple[Any, ...] = (dict, list, tuple, set, frozenset, type({}.keys()), type({}.values()), type({}.items()))


class OverBudget(jinja2.TemplateRuntimeError):
    """A template wants more time or memory than its messages can need."""


class Meter:
    """Counts down what a rendering has left; everything raises OverBudget where that is too little."""

    def __init__(self) -> None:
        self.steps = self.characters = self.depth = 0

    def begin(self, given: Any) -> None:
        """Start over, with as much as a template may need for the values in `given`."""
        values, characters = measure(given, None)
        self.steps = BASE_STEPS + STEPS_A_VALUE * values + characters
        self.characters = BASE_CHARACTERS + CHARACTERS_A_VALUE * values + CHARACTERS_A_CHARACTER * characters
        self.depth = 0

    def spend(self, steps: int, characters: int = 0) -> bool:
        """Take off; True, so that it can stand in a condition."""
        self.steps -= steps
        self.characters -= characters
        if self.steps < 0:
            raise OverBudget("it takes more steps than these messages can need")
        if self.characters < 0:
            raise OverBudget("it makes more text than these messages can need")
        return True

    def need(self, characters: int) -> None:
        """Raise unless `characters` more could be made: said before they are."""
        if characters > self.characters:
            raise OverBudget("it makes more text than these messages can need")

    def weigh(self, value: Any) -> int:
        """The most characters that `value` has, written out; takes off the steps of reading all of it."""
        if isinstance(value, str):
            self.spend(len(value) >> PER_STEP)
            return len(value)
        if isinstance(value, CONTAINERS) or isinstance(value, int | range):
            values, characters = measure(value, self.steps)
            self.spend(values + (characters >> PER_STEP))
            return characters * ESCAPED + values * SMALL
        return SMALL * 4  # a number, or an object of the sandbox, which has a short name

    def made(self, value: Any) -> Any:
        """`value` itself, new in memory, with its characters taken off; an iterator counts what it yields."""
        if isinstance(value, str):
            self.spend(0, len(value) + SMALL)
        elif isinstance(value, CONTAINERS):
            self.spend(len(value) >> PER_STEP, 4 * len(value) + SMALL)
        elif isinstance(value, int):
            if value.bit_length() > LARGEST_INTEGER:
                raise OverBudget(f"it computes a number of more than {LARGEST_INTEGER} bits")
        elif isinstance(value, Iterator):
            return self.position_range(value)
        return value

    def position_range(self, items: Iterable[Any]) -> Iterator[Any]:
        """`items`, with a step and the memory of a pair taken off for each."""
        for item in items:
            self.spend(1, 2 * SMALL)
            yield item


def measure(value: Any, limit: int | None) -> tuple[int, int]:
    """(Values, characters of text) in `value`, lists and objects counted as often as they would be written; level by level, since recursion has a limit
    of its own. Raises OverBudget for more than `limit` values, or more than DEEPEST levels."""
    row, values, characters = [value], 0, 0
    for _ in range(DEEPEST):
        inner: list[Any] = []
        wide = len(row)
        for node in row:
            if isinstance(node, str):
                characters += len(node)
            elif isinstance(node, CONTAINERS):
                wide += 2 * len(node)
                if limit is not None and values + wide > limit:
                    raise OverBudget("it reads more values than these messages can need")
                inner.extend(node)
                if isinstance(node, dict):
                    inner.extend(node.values())
            elif isinstance(node, int):
                characters += node.bit_length() // 3
            elif isinstance(node, range):
                values += len(node)
                characters += 20 * len(node)
        values += len(row)
        if not inner:
            return values, characters
        row = inner
    raise OverBudget(f"it nests values more than {DEEPEST} levels deep")
