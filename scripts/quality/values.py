"""The results of an evaluation: values by measure and column, and the gates on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SYNTHESISER, RESYNTHESIS, GIVEN, OWN = COLUMNS = ("synthesiser", "resynthesis", "given text", "own text")
"""The columns of the table.

The synthesiser's speech of the right answers; the same through the bundle's codec; the bundle's speech of the
right answers; its own answers.
"""
WER = "word error rate, {}"
TYPED, SPOKEN, SPOKEN_APART = "right, typed", "right, spoken", "right, spoken by an unheard voice"
LEAST_USED = "entries used of the least used codebook"
ENDLESS, EMPTY = "runs without an end", "runs without sound"
CURSOR_MEDIAN, CURSOR_HIGH = "cursor error, median", "cursor error, 95th percentile"
LIVE = " while the answer lasts"
"""Suffix of a cursor measure as reported by the events during the answer, not afterwards."""


@dataclass(frozen=True)
class Value:
    """One cell.

    `value` is a share (0 to 1) where `unit` is "%", else a number in that unit; `kind`: a part of the domain,
    or "" for all.
    """

    measure: str
    column: str
    value: float | None
    unit: str = ""
    kind: str = ""

    @property
    def shown(self) -> str:
        """A text for people; a dash if the value could not be measured."""
        if self.value is None:
            return "-"
        if self.unit == "%":
            return f"{100 * self.value:.1f} %"
        return f"{self.value:g} runs" if self.unit == "runs" else f"{self.value:.2f} {self.unit}".strip()


@dataclass(frozen=True)
class Gate:
    """A limit and the measured value; `met` is None if it was not measured."""

    name: str
    wanted: str
    found: float | None
    unit: str
    met: bool | None


class Found:
    """Values by measure, column and kind."""

    def __init__(self, values: Iterable[Value] = ()) -> None:
        self.values = list(values)

    def add(self, measure: str, column: str, value: float | None, unit: str = "", kind: str = "") -> None:
        """Store one value."""
        self.values.append(Value(measure, column, value, unit, kind))

    def get(self, measure: str, column: str, kind: str = "") -> float | None:
        """The value of a cell; None if it was not measured."""
        return next(
            (
                one.value
                for one in self.values
                if (one.measure, one.column, one.kind) == (measure, column, kind)
            ),
            None,
        )

    def gates(self, recogniser: str) -> list[Gate]:
        """The gates of the shipped model, with the word error rates of `recogniser`."""
        wer = WER.format(recogniser)
        floor = self.get(wer, SYNTHESISER)
        return [
            _at_most(
                "(a) resynthesis: word error rate above the synthesiser's",
                _above(self.get(wer, RESYNTHESIS), floor),
                0.05,
                "%",
            ),
            _at_least("(a) entries used of every codebook", self.get(LEAST_USED, RESYNTHESIS), 0.6, "%"),
            _at_most(
                "(b) given text: word error rate above the synthesiser's",
                _above(self.get(wer, GIVEN), floor),
                0.1,
                "%",
            ),
            _at_least("(c) right answers, typed", self.get(TYPED, OWN), 0.9, "%"),
            _at_least("(c) right answers, spoken", self.get(SPOKEN, OWN), 0.7, "%"),
            _at_most(f"(c) sampled {ENDLESS}", self.get(ENDLESS, OWN), 0, "runs"),
            _at_most(f"(c) sampled {EMPTY}", self.get(EMPTY, OWN), 0, "runs"),
            *(
                _at_most(
                    f"ARIA {CURSOR_MEDIAN}{when}", self.get(CURSOR_MEDIAN + when, SYNTHESISER), 1, "words"
                )
                for when in ("", LIVE)
            ),
            *(
                _at_most(f"ARIA {CURSOR_HIGH}{when}", self.get(CURSOR_HIGH + when, SYNTHESISER), 2, "words")
                for when in ("", LIVE)
            ),
        ]


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _above(value: float | None, floor: float | None) -> float | None:
    return None if value is None or floor is None else value - floor


def _at_most(name: str, found: float | None, limit: float, unit: str) -> Gate:
    return Gate(
        name,
        f"at most {Value('', '', limit, unit).shown}",
        found,
        unit,
        None if found is None else found <= limit + 1e-9,
    )


def _at_least(name: str, found: float | None, limit: float, unit: str) -> Gate:
    return Gate(
        name,
        f"at least {Value('', '', limit, unit).shown}",
        found,
        unit,
        None if found is None else found >= limit - 1e-9,
    )
