"""English number words, clock times and dates as this domain says them; American, without "and"."""

from __future__ import annotations

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()  # fmt: skip
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth",
    "twenty": "twentieth", "thirty": "thirtieth",
}  # fmt: skip
MONTHS = "January February March April May June July August September October November December".split()
DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def number(value: int) -> str:
    """`value` (0 to 9,999) in words: 347 is "three hundred forty seven"."""
    if not 0 <= value <= 9999:
        raise ValueError(f"{value} is outside 0 .. 9999, the numbers that this domain can say")
    if value < 20:
        return UNITS[value]
    if value < 100:
        return " ".join([TENS[value // 10 - 2], *([UNITS[value % 10]] if value % 10 else [])])
    size, name = (1000, "thousand") if value >= 1000 else (100, "hundred")
    return " ".join([UNITS[value // size], name, *([number(value % size)] if value % size else [])])


def clock(hour: int, minute: int) -> str:
    """A time of day (hour 1 to 12) in words: 7:05 is "seven oh five", 7:00 is "seven o'clock"."""
    if minute == 0:
        return f"{number(hour)} o'clock"
    return f"{number(hour)} oh {number(minute)}" if minute < 10 else f"{number(hour)} {number(minute)}"


def ordinal(value: int) -> str:
    """`value` (1 to 31) as an ordinal: 21 is "twenty first"."""
    *front, last = number(value).split()
    return " ".join([*front, ORDINALS.get(last, f"{last}th")])
