"""The language of sizes: what it computes, for numbers and for symbolic sizes, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.kernels.expression import evaluate, names


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("rows * (width + 2)", 3 * 12),
        ("width // rows - 1", 2),
        ("ceil_div(width, rows)", 4),
        ("min(width, rows, 5)", 3),
        ("max(width, rows, 50)", 50),
        ("width % 4 == 2", True),
        ("rows <= 3 and width > 10", False),
        ("rows != 3", False),
        ("rows == 3 and width >= 10 and width < 11", True),
    ],
)
def test_a_size_is_computed(text: str, value: int | bool) -> None:
    assert evaluate(text, {"rows": 3, "width": 10}) == value


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**40), st.integers(1, 2**20))
def test_ceil_div_rounds_up_exactly(a: int, b: int) -> None:
    assert evaluate("ceil_div(a, b)", {"a": a, "b": b}) == a // b + (a % b > 0)


@pytest.mark.parametrize(
    "text",
    [
        "1.5",
        "'text'",
        "rows / 2",
        "rows ** 2",
        "-rows",
        "round(rows)",
        "rows if rows else 1",
        "rows.real",
        "1 < rows < 3",
        "rows or 1",
        "min()",
    ],
)
def test_what_tensorrt_could_not_say_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="A size may hold"):
        evaluate(text, {"rows": 3})


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="width"):
        evaluate("width + 1", {"rows": 3})


def test_names_are_the_symbols_and_not_the_functions() -> None:
    assert names("ceil_div(rows * 2, block) + min(tokens, 7)") == {"rows", "block", "tokens"}


class Symbolic:
    """A size that remembers how it was made, as TensorRT's do."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __add__(self, other: Any) -> Symbolic:
        return Symbolic(f"({self.text} + {getattr(other, 'text', other)})")

    def __mul__(self, other: Any) -> Symbolic:
        return Symbolic(f"({self.text} * {getattr(other, 'text', other)})")


def test_symbolic_sizes_go_through_as_they_are() -> None:
    functions = {"ceil_div": lambda a, b: Symbolic(f"cdiv({a.text}, {b})")}
    assert (
        evaluate(
            "ceil_div(rows * width + 1, 16)", {"rows": Symbolic("r"), "width": Symbolic("w")}, functions
        ).text
        == "cdiv(((r * w) + 1), 16)"
    )


def test_numbers_are_whole() -> None:
    assert evaluate("ceil_div(10, 3)", {}) == math.ceil(10 / 3)
