"""The normaliser of English text for word comparisons, and the word error rate.

Recognisers write the same words in many ways ("51+18 = 69.", "It is 7.45.", "J-U-M-P"); all become the spoken
words in lower case. The rules are fixed, and every number of the quality table uses the same ones, for all
bundles and recognisers. `normalise` is idempotent.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .number_words import NUMBER_WORDS, cardinal, clock, digits, ordinal

WORDS = {
    "colour": "color",
    "colours": "colors",
    "grey": "gray",
    "okay": "ok",
    "alright": "all right",
    "goodby": "goodbye",
    "hullo": "hello",
    "hallo": "hello",
    "cannot": "can not",
    "can't": "can not",
    "won't": "will not",
    "i'm": "i am",
    "let's": "let us",
    "equals": "is",
    "metre": "meter",
    "favourite": "favorite",
    "litre": "liter",
    "neighbour": "neighbor",
    "mister": "mr",
    "saint": "st",
    "ninty": "ninety",
    "fourty": "forty",
}
"""Spellings and contractions, whole words."""
ENDINGS = {"n't": " not", "'re": " are", "'ve": " have", "'ll": " will", "'d": " would"}
IS = "it that what there here who where how he she".split()
"""Words after which 's means "is". Elsewhere it is a possessive and stays, without its apostrophe."""
SIGNS = {"+": " plus ", "=": " is ", "&": " and ", "%": " percent "}
TIME_BEFORE = r"\b(it is|it's|the time is|the time|shows|is now)"
"""Context of three or four bare digits: some recognisers write the time of day so."""

_RULES = 6


def normalise(text: str) -> str:
    """`text` as lower-case words, separated by single spaces."""
    # A rule may produce a case for another rule; a few passes reach a fixed point.
    for _ in range(_RULES):
        before, text = text, _once(text)
        if text == before:
            break
    return text


def _once(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.replace("’", "'").replace("‘", "'"))
    plain = plain.encode("ascii", "ignore").decode()
    plain = re.sub(
        r"\b[A-Z]{2,6}\b(?!')",
        lambda found: " ".join(found[0]) if found[0] not in ("OK", "AM", "PM") else found[0],
        plain,
    )
    plain = re.sub(r"(?<=\b[A-Za-z])[.\-](?=[A-Za-z]\b)", " ", plain).lower()
    for sign, word in SIGNS.items():
        plain = plain.replace(sign, word)
    plain = _numbers(plain)
    words = [
        word
        for token in re.findall(r"[a-z]+(?:'[a-z]+)*", plain)
        for word in _expanded(token).replace("'", "").split()
    ]
    return " ".join(_phrases(words))


def _numbers(text: str) -> str:
    """Digits in words; `text` must be in lower case."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)(?!\d{3},? \d)", "", text)
    text = re.sub(r"\b(1[0-2]|0?[1-9])[:.]([0-5]\d)\b(?!\.\d)(?: o'?clock)?", _clock, text)
    text = re.sub(
        rf"{TIME_BEFORE} (1[0-2]|[1-9])([0-5]\d)\b",
        lambda found: f"{found[1]} {clock(int(found[2]), int(found[3]))}",
        text,
    )
    text = re.sub(r"(\d+)(?:st|nd|rd|th)\b", lambda found: f" {ordinal(int(found[1]))} ", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", " point ", text)
    return re.sub(
        r"\d+",
        lambda found: (
            f" {digits(found[0]) if found[0][0] == '0' and len(found[0]) > 1 else cardinal(int(found[0]))} "
        ),
        text,
    )


def _clock(found: re.Match[str]) -> str:
    return f" {clock(int(found[1]), int(found[2]))} "


def _expanded(token: str) -> str:
    """One token, which may contain apostrophes, as words."""
    if token in WORDS:
        return WORDS[token]
    if token.endswith("'s") and token[:-2] in IS:
        return f"{token[:-2]} is"
    for ending, words in ENDINGS.items():
        if token.endswith(ending) and len(token) > len(ending):
            return token[: -len(ending)] + words
    return token


def _phrases(words: Sequence[str]) -> list[str]:
    """Apply rules on neighbouring words: o'clock, "oh" in a number, "a hundred", "hundred and forty", "good
    bye"."""
    said: list[str] = []
    for place, word in enumerate(words):
        last, following = said[-1] if said else "", words[place + 1] if place + 1 < len(words) else ""
        if word == "clock" and last in ("o", "oh"):
            said[-1] = "oclock"
        elif word == "bye" and last == "good":
            said[-1] = "goodbye"
        elif word == "o" and last in NUMBER_WORDS and following in NUMBER_WORDS:
            said.append("oh")
        elif word == "a" and following in ("hundred", "thousand", "million"):
            said.append("one")
        elif not (word == "and" and last in ("hundred", "thousand", "million") and following in NUMBER_WORDS):
            said.append(word)
    return said


@dataclass(frozen=True)
class Errors:
    """Word errors of hypotheses against references of `words` words; results of several items add up."""

    errors: int = 0
    words: int = 0

    def __add__(self, other: Errors) -> Errors:
        return Errors(self.errors + other.errors, self.words + other.words)

    @property
    def rate(self) -> float | None:
        """Word error rate, at least 0, also above 1; None without words."""
        return self.errors / self.words if self.words else None


def word_errors(reference: str, hypothesis: str, prepare: Callable[[str], str] = normalise) -> Errors:
    """Substitutions, deletions and insertions that turn `reference` into `hypothesis`, both normalised."""
    expected, found = prepare(reference).split(), prepare(hypothesis).split()
    costs = list(range(len(found) + 1))  # cost of turning nothing into each prefix of `found`
    for row, word in enumerate(expected, start=1):
        diagonal, costs[0] = costs[0], row
        for column, other in enumerate(found, start=1):
            diagonal, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, diagonal + (word != other)),
            )
    return Errors(costs[-1], len(expected))
