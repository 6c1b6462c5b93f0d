"""The domain: every answer is right, what is held out is never trained on,
and the tokenizer writes all of it.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from antiphon.scripts.train_tiny.domain import DOINGS, HELD_OUT, KINDS, WORDS, Exchange, draw, is_held_out
from antiphon.scripts.train_tiny.small_talk import COLOURS, MIXTURES, SMALL_TALK
from antiphon.scripts.train_tiny.words import MONTHS, clock, number, ordinal

DRAWS = 400
SPOKEN = re.compile(r"[A-Za-z ,.?!:']+")


def drawn(kind: str | None, held_out: bool, count: int = DRAWS) -> list[Exchange]:
    choice = random.Random(f"{kind} {held_out}")
    return [draw(choice, held_out, kind) for _ in range(count)]


def numbers_in(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", text)]


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def number_answer(exchange: Exchange) -> str:
    (value,) = numbers_in(exchange.typed)
    return f"{capital(number(value))}."


def sum_answer(exchange: Exchange) -> str:
    first, second = numbers_in(exchange.typed)
    assert first + second <= 100
    return capital(f"{number(first)} plus {number(second)} is {number(first + second)}.")


def time_answer(exchange: Exchange) -> str:
    hour, minute = numbers_in(exchange.typed)
    return f"It is {clock(hour, minute)}."


def date_answer(exchange: Exchange) -> str:
    (name,), (day,) = [month for month in MONTHS if month in exchange.typed], numbers_in(exchange.typed)
    after = datetime.date(2024, MONTHS.index(name) + 1, day) + datetime.timedelta(days=1)
    return f"The day after {name} {ordinal(day)} is {MONTHS[after.month - 1]} {ordinal(after.day)}."


def colour_answer(exchange: Exchange) -> str:
    for thing, colour in COLOURS.items():
        if re.search(rf"\b{thing}\b", exchange.typed):
            return capital(f"{thing} is {colour}.")
    for (first, second), mixed in MIXTURES.items():
        for one, other in ((first, second), (second, first)):
            if f"{one} and {other}" in exchange.typed:
                return capital(f"{one} and {other} make {mixed}.")
    raise AssertionError(f"{exchange.typed} names no colour")


def spelling_answer(exchange: Exchange) -> str:
    word = exchange.typed.rstrip(".?").split()[-1]
    assert word in WORDS
    return ", ".join(word.upper()) + "."


def repeated_answer(exchange: Exchange) -> str:
    phrase = exchange.typed.partition(": ")[2].rstrip(".")
    assert phrase.endswith(DOINGS)
    return capital(phrase) + "."


def talk_answer(exchange: Exchange) -> str:
    (answer,) = {answer for wordings, answer in SMALL_TALK if exchange.typed in wordings}
    return answer


def count_answer(exchange: Exchange) -> str:
    first, last = numbers_in(exchange.typed)
    assert 5 <= last - first <= 15
    return capital(", ".join(map(number, range(first, last + 1)))) + "."


def story_answer(exchange: Exchange) -> str:
    size, shade, thing = exchange.typed.rstrip(".").split()[-3:]
    assert exchange.answer.startswith(f"There was a {size} {shade} {thing}. One day the {thing} saw a ")
    assert (
        exchange.answer.endswith(f"then the {shade} {thing} went home.")
        and len(exchange.answer.split()) >= 30
    )
    return exchange.answer


RIGHT: dict[str, Callable[[Exchange], str]] = {
    "number": number_answer,
    "sum": sum_answer,
    "time": time_answer,
    "date": date_answer,
    "color": colour_answer,
    "spelling": spelling_answer,
    "repeat": repeated_answer,
    "talk": talk_answer,
    "count": count_answer,
    "story": story_answer,
}


@pytest.mark.parametrize("held_out", [False, True], ids=["trained", "held_out"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_right(kind: str, held_out: bool) -> None:
    for exchange in drawn(kind, held_out):
        assert exchange.kind == kind
        assert exchange.answer == RIGHT[kind](exchange), exchange


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_held_out_is_never_drawn_for_training(kind: str) -> None:
    trained, kept = ({exchange.key for exchange in drawn(kind, held_out)} for held_out in (False, True))
    assert trained and kept and not trained & kept
    assert all(is_held_out(f"{kind}:{key}") for key in kept) and not any(
        is_held_out(f"{kind}:{key}") for key in trained
    )


def test_a_question_has_one_content_however_it_is_worded() -> None:
    keys: dict[str, set[str]] = {}
    for exchange in drawn("sum", False, 3000):
        keys.setdefault(" ".join(map(str, numbers_in(exchange.typed))), set()).add(exchange.key)
    assert all(len(found) == 1 for found in keys.values())


def test_about_the_stated_share_of_contents_is_held_out() -> None:
    kept = sum(is_held_out(f"number:{value}") for value in range(10_000)) / 10_000
    assert kept == pytest.approx(HELD_OUT, abs=0.01)


def test_every_kind_is_drawn_by_its_share_and_shares_are_whole() -> None:
    assert sum(share for _, share in KINDS.values()) == pytest.approx(1.0)
    exchanges = drawn(None, False, 4000)
    for kind, (_, share) in KINDS.items():
        assert sum(exchange.kind == kind for exchange in exchanges) / len(exchanges) == pytest.approx(
            share, abs=0.03
        )


def test_the_same_seed_draws_the_same() -> None:
    assert drawn(None, False) == drawn(None, False)


def test_what_is_spoken_and_answered_holds_words_only() -> None:
    for exchange in drawn(None, False, 2000) + drawn(None, True, 1000):
        assert SPOKEN.fullmatch(exchange.spoken), exchange
        assert SPOKEN.fullmatch(exchange.answer), exchange


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_writes_every_question_and_answer(start_checkpoint: Path, kind: str) -> None:
    tokenizer = Tokenizer.from_file(str(start_checkpoint / "tokenizer.json"))
    for exchange in drawn(kind, True, 100):
        for text in (exchange.typed, exchange.spoken, exchange.answer):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
            assert max(ids) < tokenizer.get_vocab_size() == 1024
