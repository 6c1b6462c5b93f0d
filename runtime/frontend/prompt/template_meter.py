"""The budget of one rendering of a chat template: steps, which limit its time, and characters, which limit
its memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jinja2

BASE_STEPS, STEPS_A_VALUE = 200_000, 300
"""Steps of a rendering: a base, a number per value in the messages and tools, and one per character. A
published template takes about 100 for a message, which is 5 values. A step takes up to a microsecond.
"""
BASE_CHARACTERS, CHARACTERS_A_CHARACTER, CHARACTERS_A_VALUE = 4 * 2**20, 64, 1024
"""Characters that a rendering may make, of at most 4 bytes each. A published template makes about 6 for every
input character.
"""
DEEPEST = 100
"""The most levels of nested lists and objects, and of nested calls."""
LARGEST_INTEGER = 1024
"""The most bits of a number that a template computes."""
SMALL = 16
"""Size of an object's header in characters, charged for every new object."""
ESCAPED = 6
"""The most characters that one character becomes in JSON or in a list written as text."""
PER_STEP = 7
"""A shift: reading 128 characters of text takes about as long as one step."""

CONTAINERS: tuple[Any, ...] = (
    dict,
    list,
    tuple,
    set,
    frozenset,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


class OverBudget(jinja2.TemplateRuntimeError):
    """A template needs more time or memory than its messages justify."""


class Meter:
    """Counts down the budget of a rendering. Every method raises OverBudget if the rest is too small."""

    def __init__(self) -> None:
        self.steps = self.characters = self.depth = 0

    def begin(self, given: Any) -> None:
        """Start again with the budget for the values in `given`."""
        values, characters = measure(given, None)
        self.steps = BASE_STEPS + STEPS_A_VALUE * values + characters
        self.characters = BASE_CHARACTERS + CHARACTERS_A_VALUE * values + CHARACTERS_A_CHARACTER * characters
        self.depth = 0

    def spend(self, steps: int, characters: int = 0) -> bool:
        """Charge steps and characters; returns True, so that a condition can contain the call."""
        self.steps -= steps
        self.characters -= characters
        if self.steps < 0:
            raise OverBudget("it takes more steps than these messages can need")
        if self.characters < 0:
            raise OverBudget("it makes more text than these messages can need")
        return True

    def need(self, characters: int) -> None:
        """Raise OverBudget unless `characters` more can be made. Called before they are made."""
        if characters > self.characters:
            raise OverBudget("it makes more text than these messages can need")

    def weigh(self, value: Any) -> int:
        """The most characters of `value` when it is written as text. Charges the steps to read all of it."""
        if isinstance(value, str):
            self.spend(len(value) >> PER_STEP)
            return len(value)
        if isinstance(value, CONTAINERS) or isinstance(value, int | range):
            values, characters = measure(value, self.steps)
            self.spend(values + (characters >> PER_STEP))
            return characters * ESCAPED + values * SMALL
        return SMALL * 4  # a number, or an object of the sandbox, which has a short name

    def made(self, value: Any) -> Any:
        """Charge the characters of the new object `value` and return it. An iterator is charged for what it
        yields.
        """
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
        """Yield `items`, and charge one step and the memory of a pair for each."""
        for item in items:
            self.spend(1, 2 * SMALL)
            yield item


def measure(value: Any, limit: int | None) -> tuple[int, int]:
    """(Values, characters of text) in `value`. Lists and objects count as often as they would be written.

    Works level by level, since recursion has its own limit. Raises OverBudget for more than `limit` values,
    or more than DEEPEST levels.
    """
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
