"""Numbers, ordinals and clock times in English words; American, without "and", without hyphens."""

from __future__ import annotations

UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = ((1_000_000, "million"), (1000, "thousand"), (100, "hundred"))
LARGEST = 999_999_999
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
NUMBER_WORDS = frozenset([*UNITS, *TENS, *(name for _, name in SCALES)])


def cardinal(value: int) -> str:
    """`value` in words: 347 is "three hundred forty seven"; above `LARGEST` it is read digit by digit."""
    if value > LARGEST:
        return digits(str(value))
    if value < 20:
        return UNITS[value]
    if value < 100:
        return " ".join([TENS[value // 10 - 2], *([UNITS[value % 10]] if value % 10 else [])])
    size, name = next(scale for scale in SCALES if value >= scale[0])
    return " ".join([cardinal(value // size), name, *([cardinal(value % size)] if value % size else [])])


def ordinal(value: int) -> str:
    """`value` as an ordinal: 21 is "twenty first", 30 is "thirtieth"."""
    *front, last = cardinal(value).split()
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*front, ORDINALS.get(last, regular)])


def clock(hour: int, minute: int) -> str:
    """A time of day in words: 7:45 is "seven forty five", 7:05 is "seven oh five", 7:00 is "seven oclock"."""
    if minute == 0:
        return f"{cardinal(hour)} oclock"
    return (
        f"{cardinal(hour)} oh {cardinal(minute)}" if minute < 10 else f"{cardinal(hour)} {cardinal(minute)}"
    )


def digits(text: str) -> str:
    """Digits in words: "05" is "oh five"; a leading zero is "oh"."""
    leading = len(text) - len(text.lstrip("0"))
    return " ".join("oh" if place < leading else UNITS[int(digit)] for place, digit in enumerate(text))
