"""Numbers and clock times in words, for the contents of the domain."""

from __future__ import annotations

from ..quality import number_words
from ..quality.number_words import ordinal

__all__ = ["DAYS", "MONTHS", "clock", "number", "ordinal"]

MONTHS = "January February March April May June July August September October November December".split()
DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def number(value: int) -> str:
    """`value` in words: 347 is "three hundred forty seven". Raises ValueError outside 0 to 9,999."""
    if not 0 <= value <= 9999:
        raise ValueError(f"{value} is outside 0 .. 9999, the numbers that this domain can say")
    return number_words.cardinal(value)


def clock(hour: int, minute: int) -> str:
    """A time of day (hour 1 to 12) in words, as written: 7:05 is "seven oh five", 7:00 is "seven o'clock"."""
    return number_words.clock(hour, minute).replace("oclock", "o'clock")
