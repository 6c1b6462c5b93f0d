"""The normaliser and the word error rate that every number of the quality table is made with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.scripts.quality.normaliser import Errors, normalise, word_errors
from antiphon.scripts.quality.number_words import cardinal, clock, ordinal

PIECES = st.one_of(
    st.sampled_from(
        (
            "and a o oh clock hundred good bye can't it's It is 7:45 7.05 745 30th 1,234 05 C-A-T CAT C.A.T. "
            "colour + = & % OK O'Clock ’ ' - . ,"
        ).split()
    ),
    st.text(max_size=6),
    st.integers(0, 12_345).map(str),
)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("681.", "six hundred eighty one"),
        ("51 + 18 = 69.", "fifty one plus eighteen is sixty nine"),
        ("Fifty-one plus eighteen equals sixty-nine", "fifty one plus eighteen is sixty nine"),
        ("It is 7:45.", "it is seven forty five"),
        ("It is 7.05", "it is seven oh five"),
        ("It is 231.", "it is two thirty one"),
        ("It's 1210.", "it is twelve ten"),
        ("It is 7 o'clock.", "it is seven oclock"),
        ("It is 7:00.", "it is seven oclock"),
        ("seven o five", "seven oh five"),
        ("The day after March 30th is March 31st.", "the day after march thirtieth is march thirty first"),
        ("11, 12, 13", "eleven twelve thirteen"),
        ("5,428", "five thousand four hundred twenty eight"),
        ("98, 99, 100, 101", "ninety eight ninety nine one hundred one hundred one"),
        ("a hundred and forty", "one hundred forty"),
        ("black and white", "black and white"),
        ("C-A-T", "c a t"),
        ("C.A.T.", "c a t"),
        ("C, A, T", "c a t"),
        ("CAT", "c a t"),
        ("The Colour is grey, okay?", "the color is gray ok"),
        ("I can't. I cannot. I can not.", "i can not i can not i can not"),
        ("Good-bye!", "goodbye"),
        ("What’s the cat's name?", "what is the cats name"),
        ("", ""),
    ],
)
def test_what_is_written_becomes_what_is_said(written: str, said: str) -> None:
    assert normalise(written) == said


@given(st.lists(PIECES, max_size=8), st.sampled_from(["", " ", ", "]))
def test_a_second_normalisation_changes_nothing(pieces: list[str], between: str) -> None:
    once = normalise(between.join(pieces))
    assert normalise(once) == once


@given(st.integers(0, 999_999_999))
def test_digits_and_their_words_are_the_same(value: int) -> None:
    assert normalise(str(value)) == cardinal(value) == normalise(cardinal(value))


def test_the_training_data_says_numbers_dates_and_times_in_the_same_words() -> None:
    words = pytest.importorskip(
        "antiphon.scripts.train_tiny.words", reason="the wheel holds no training code"
    )
    for value in range(10_000):
        assert cardinal(value) == words.number(value)
    for day in range(1, 32):
        assert ordinal(day) == words.ordinal(day)
    for minute in range(60):
        assert normalise(clock(7, minute)) == normalise(words.clock(7, minute))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("one two three", "one two three", 0),
        ("one two three", "one three", 1),
        ("one two", "one nine two", 1),
        ("one two", "", 2),
        ("", "one", 1),
        ("21", "twenty one", 0),
    ],
)
def test_word_errors_are_the_fewest_changes(reference: str, hypothesis: str, errors: int) -> None:
    assert word_errors(reference, hypothesis) == Errors(errors, len(normalise(reference).split()))


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_word_errors_count_the_same_both_ways(first: list[str], second: list[str]) -> None:
    one, other = " ".join(first), " ".join(second)
    assert word_errors(one, other).errors == word_errors(other, one).errors <= max(len(first), len(second))


def test_the_rate_of_several_texts_is_over_all_their_words() -> None:
    assert (Errors(1, 2) + Errors(0, 8)).rate == 0.1
    assert Errors().rate is None
