"""Number words, clock times and ordinals as the domain says them."""

from __future__ import annotations

import calendar
import re

import pytest

from antiphon.scripts.train_tiny.words import DAYS, MONTHS, clock, number, ordinal

WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"
).split()
VALUES = dict(zip(WORDS, (*range(20), *range(20, 100, 10)), strict=True))
FACTORS = {"hundred": 100, "thousand": 1000}


def value(words: str) -> int:
    """What number words mean, read from the left: independent of how they are made."""
    total = group = 0
    for word in words.split():
        if word in FACTORS and FACTORS[word] == 1000:
            total, group = 1000 * group, 0
        else:
            group = group * FACTORS[word] if word in FACTORS else group + VALUES[word]
    return total + group


def test_every_number_means_itself_and_none_is_said_twice() -> None:
    said = [number(each) for each in range(10_000)]
    assert [value(words) for words in said] == list(range(10_000))
    assert len(set(said)) == 10_000


def test_numbers_are_said_the_shortest_way() -> None:
    for each in range(1, 10_000):
        words = number(each).split()
        assert (
            words.count("thousand") == (each >= 1000)
            and words.count("hundred") == (each % 1000 >= 100)
            and "zero" not in words
        )
    assert (number(347), number(4012), number(9000)) == (
        "three hundred forty seven",
        "four thousand twelve",
        "nine thousand",
    )


@pytest.mark.parametrize("outside", [-1, 10_000])
def test_a_number_that_cannot_be_said_is_an_error(outside: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{outside} is outside 0 .. 9999")):
        number(outside)


def test_every_time_of_day_is_said_by_its_hour_and_minute() -> None:
    for hour in range(1, 13):
        for minute in range(60):
            first, *rest = clock(hour, minute).split()
            assert VALUES[first] == hour
            assert (
                rest == ["o'clock"]
                if minute == 0
                else rest[0] == "oh"
                if minute < 10
                else value(" ".join(rest)) == minute
            )
            if 0 < minute < 10:
                assert value(" ".join(rest[1:])) == minute
    assert (clock(7, 5), clock(7, 0), clock(12, 45)) == (
        "seven oh five",
        "seven o'clock",
        "twelve forty five",
    )


def test_ordinals_of_a_month() -> None:
    teens = (
        "tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth"
    ).split()
    ones = "first second third fourth fifth sixth seventh eighth ninth".split()
    month = [*ones, *teens, "twentieth", *(f"twenty {one}" for one in ones), "thirtieth", "thirty first"]
    assert [ordinal(day) for day in range(1, 32)] == month


def test_the_year_is_a_leap_year() -> None:
    assert list(DAYS) == [calendar.monthrange(2024, month)[1] for month in range(1, 13)] and len(MONTHS) == 12
