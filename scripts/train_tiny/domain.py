"""The closed domain of the shipped tiny model: questions, typed or spoken, each with one right answer.

It is English and small enough for a few million parameters: numbers and sums, clock times, dates, colours,
spelling, repeating a phrase, small talk, and long answers from templates. A hash of the content (a number, a
pair, a phrase) decides whether an exchange may be used in training. So no evaluated content appears in
training, heard or read.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from .small_talk import COLOURS, MIXTURES, SMALL_TALK
from .words import DAYS, MONTHS, clock, number, ordinal

HELD_OUT = 0.08
"""Share of all contents that no training uses."""
WORDS = (
    "cat dog sun map red bag box cup day egg fan gum hat ink jam key leg mud net oil pen rug sky toe "
    "van wax yes zoo apple bread chair dance earth flame grass house image juice knife lemon mouse night "
    "ocean paper queen river stone table uncle voice water yacht zebra bird cake door fish gold hand "
    "iron jump kite lamp moon nose open park quiz road ship tree unit vest wind yard zone black clock "
    "dream field green heart light music plant sleep train world young bus car fox hen ice kid law men "
    "nut pig row sea tax war frog book milk rain snow"
).split()
SIZES = "big small old new fast slow happy quiet".split()
SHADES = "red green blue yellow black white".split()
THINGS = "boat bird house dog tree train cat lamp".split()
DOINGS = (
    "is here",
    "is gone",
    "can sing",
    "is very nice",
    "is by the river",
    "was in the park",
    "is not far away",
    "comes home today",
)
FRIENDS = dict(zip(THINGS, ("bird", "cat", "tree", "lamp", "house", "boat", "train", "dog"), strict=True))
PLACES = dict(
    zip(THINGS, ("river", "garden", "city", "park", "forest", "station", "kitchen", "table"), strict=True)
)
MOODS = dict(
    zip(SIZES, ("proud", "shy", "wise", "curious", "glad", "tired", "cheerful", "calm"), strict=True)
)


@dataclass(frozen=True)
class Exchange:
    """A question, as typed and as spoken, and its answer.

    `key` is its content, which decides about holding out; `kind` the generator.
    """

    kind: str
    key: str
    typed: str
    spoken: str
    answer: str

    @property
    def held_out(self) -> bool:
        """Whether this content is reserved for evaluation."""
        return is_held_out(f"{self.kind}:{self.key}")


def is_held_out(content: str) -> bool:
    """Whether `content` is held out, decided by a hash, which never changes."""
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") < HELD_OUT * 2**32


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


def say_number(choice: random.Random) -> Exchange:
    """Read a number aloud, of one to four digits: three quarters below 1,000."""
    value = choice.choice(
        (choice.randrange(100), choice.randrange(1000), choice.randrange(1000), choice.randrange(10000))
    )
    ask = choice.choice(("Say {}.", "Read the number {}.", "Please say {}.", "How do you say {}?"))
    return Exchange(
        "number", str(value), ask.format(value), ask.format(number(value)), sentence(number(value))
    )


def add(choice: random.Random) -> Exchange:
    """A sum of at most 100."""
    total = choice.randrange(101)
    first = choice.randrange(total + 1)
    second = total - first
    ask = choice.choice(("What is {} plus {}?", "Add {} and {}.", "How much is {} plus {}?"))
    answer = f"{number(first)} plus {number(second)} is {number(total)}"
    return Exchange(
        "sum",
        f"{first}+{second}",
        ask.format(first, second),
        ask.format(number(first), number(second)),
        sentence(answer),
    )


def tell_time(choice: random.Random) -> Exchange:
    """Read a clock."""
    hour, minute = choice.randrange(1, 13), choice.choice((0, 15, 30, 45, *range(60)))
    ask = choice.choice(
        ("It is {}. What time is it?", "Say the time {}.", "The clock shows {}. What time is it?")
    )
    return Exchange(
        "time",
        f"{hour}:{minute:02}",
        ask.format(f"{hour}:{minute:02}"),
        ask.format(clock(hour, minute)),
        f"It is {clock(hour, minute)}.",
    )


def tell_date(choice: random.Random) -> Exchange:
    """The day after a day of the year."""
    month = choice.randrange(12)
    day = choice.randrange(1, DAYS[month] + 1)
    after_month, after = (month, day + 1) if day < DAYS[month] else ((month + 1) % 12, 1)
    ask = choice.choice(("What day comes after {}?", "Which day is after {}?"))
    answer = f"The day after {MONTHS[month]} {ordinal(day)} is {MONTHS[after_month]} {ordinal(after)}."
    return Exchange(
        "date",
        f"{month}-{day}",
        ask.format(f"{MONTHS[month]} {day}"),
        ask.format(f"{MONTHS[month]} {ordinal(day)}"),
        answer,
    )


def name_colour(choice: random.Random) -> Exchange:
    """The colour of a thing or of a mixture. There are few contents, so wordings are held out instead."""
    if choice.random() < 0.5:
        thing, colour = choice.choice(sorted(COLOURS.items()))
        ask = choice.choice(
            ("What color is {}?", "Which color does {} have?", "Tell me the color of {}.")
        ).format(thing)
        return Exchange("color", ask, ask, ask, sentence(f"{thing} is {colour}"))
    (first, second), mixed = choice.choice(sorted(MIXTURES.items()))
    if choice.random() < 0.5:
        first, second = second, first
    ask = choice.choice(("What do {} and {} make?", "Mix {} and {}. What do you get?")).format(first, second)
    return Exchange("color", ask, ask, ask, sentence(f"{first} and {second} make {mixed}"))


def spell(choice: random.Random) -> Exchange:
    """Spell a short word."""
    word = choice.choice(WORDS)
    ask = choice.choice(("Spell {}.", "How do you spell {}?", "Please spell the word {}.")).format(word)
    return Exchange("spelling", word, ask, ask, ", ".join(word.upper()) + ".")


def repeat(choice: random.Random) -> Exchange:
    """Repeat a phrase."""
    phrase = (
        f"the {choice.choice(SIZES)} {choice.choice(SHADES)} {choice.choice(THINGS)} {choice.choice(DOINGS)}"
    )
    ask = choice.choice(("Repeat after me: {}.", "Say this: {}.")).format(phrase)
    return Exchange("repeat", phrase, ask, ask, sentence(phrase))


def talk(choice: random.Random) -> Exchange:
    """Small talk: several wordings share one answer; a wording is held out if its answer has another
    wording."""
    wordings, answer = choice.choice(SMALL_TALK)
    ask = choice.choice(wordings)
    return Exchange("talk", ask, ask, ask, answer)


def count(choice: random.Random) -> Exchange:
    """Count up: a long answer."""
    first = choice.randrange(0, 90)
    last = first + choice.randrange(5, 16)
    answer = ", ".join(number(value) for value in range(first, last + 1))
    ask = "Count from {} to {}."
    return Exchange(
        "count",
        f"{first}-{last}",
        ask.format(first, last),
        ask.format(number(first), number(last)),
        sentence(answer),
    )


def story(choice: random.Random) -> Exchange:
    """A small story of at least 30 words, from templates."""
    size, shade, thing = choice.choice(SIZES), choice.choice(SHADES), choice.choice(THINGS)
    friend, place = FRIENDS[thing], PLACES[thing]
    answer = (
        f"There was a {size} {shade} {thing}. One day the {thing} saw a {friend} near the {place}. "
        f"The {friend} was {MOODS[size]} and said hello. They stayed in the {place} for a long time, "
        f"and then the {shade} {thing} went home."
    )
    ask = f"Tell me a story about a {size} {shade} {thing}."
    return Exchange("story", f"{size} {shade} {thing}", ask, ask, answer)


KINDS: dict[str, tuple[Callable[[random.Random], Exchange], float]] = {
    "number": (say_number, 0.2),
    "sum": (add, 0.24),
    "time": (tell_time, 0.08),
    "date": (tell_date, 0.08),
    "color": (name_colour, 0.07),
    "spelling": (spell, 0.08),
    "repeat": (repeat, 0.08),
    "talk": (talk, 0.1),
    "count": (count, 0.04),
    "story": (story, 0.03),
}
"""The generators by kind, with the share of each."""


def draw(choice: random.Random, held_out: bool, kind: str | None = None) -> Exchange:
    """One exchange from the training contents or from the held-out ones; of one `kind`, or of any by their
    shares."""
    while True:
        name = kind or choice.choices(list(KINDS), [share for _, share in KINDS.values()])[0]
        exchange = KINDS[name][0](choice)
        if exchange.held_out == held_out:
            return exchange
