"""Limit the text that string methods and operators may make, before they make it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .template_meter import PER_STEP, SMALL, Meter, OverBudget

WIDEST = 1000
"""The most characters to which a format may pad one value."""

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        "capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha "
        "isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper "
        "join ljust lower lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition "
        "rsplit rstrip split splitlines startswith strip swapcase title upper zfill".split()
    ),
    dict: frozenset(("copy", "get", "items", "keys", "values")),
    list: frozenset(("copy", "count", "index")),
    tuple: frozenset(("count", "index")),
}
"""The methods of Python's own types that a template may call."""

SPEC = re.compile(r"[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")


def check_method(
    meter: Meter, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Charge for the data that `text.name(*args, **kwargs)` reads and makes; return the arguments to call it
    with.

    Raises OverBudget if they are too much.
    """
    size, values = len(text), (*args, *kwargs.values())
    if name == "join" and args:
        items = list(meter.position_range(args[0]))
        meter.need(sum(len(item) for item in items if isinstance(item, str)) + size * len(items))
        return (items, *args[1:])
    needle = sum(meter.weigh(value) for value in values)
    if name in (
        "find",
        "index",
        "count",
        "split",
        "partition",
        "replace",
        "rfind",
        "rindex",
        "rsplit",
        "rpartition",
        "strip",
        "lstrip",
        "rstrip",
    ):
        # A search from the front takes at worst 100 comparisons per character, one from the end the length of
        # the needle.
        meter.spend(
            (
                size
                * (
                    min(needle, 100)
                    if name in ("find", "index", "count", "split", "partition", "replace")
                    else needle
                )
            )
            >> 10
        )
    growth = GROWTH.get(name)
    meter.spend(1 + (size >> PER_STEP))
    meter.need(growth(text, values) if growth is not None else 3 * size)
    return args


def _padded(text: str, values: tuple[Any, ...]) -> int:
    return max(len(text), *(value for value in values if isinstance(value, int)), 0)


def _tabs(text: str, values: tuple[Any, ...]) -> int:
    return len(text) + text.count("\t") * max(
        (value for value in values if isinstance(value, int)), default=8
    )


def _pieces(text: str, values: tuple[Any, ...]) -> int:
    separator = next((value for value in values if isinstance(value, str)), "")
    pieces = text.count(separator) if separator else len(text) // 2
    return len(text) + 2 * SMALL * (pieces + 1)


def _lines(text: str, values: tuple[Any, ...]) -> int:
    return len(text) + 2 * SMALL * (len(text) + 1)


def replaced(text: str, values: tuple[Any, ...]) -> int:
    """The most characters of `text` after values[0] is replaced by values[1]."""
    if len(values) < 2 or not isinstance(values[0], str) or not isinstance(values[1], str):
        return len(text)
    return len(text) + text.count(values[0]) * len(values[1])


GROWTH: dict[str, Callable[[str, tuple[Any, ...]], int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padded),
    **dict.fromkeys(("split", "rsplit"), _pieces),
    "expandtabs": _tabs,
    "replace": replaced,
    "splitlines": _lines,
}


def check_percent(meter: Meter, text: str, arguments: int) -> None:
    """Charge for the text that `text % ...` makes from arguments of `arguments` characters.

    Raises OverBudget for too much text, and for a width that is too large or given as an argument.
    """
    meter.spend(1 + (len(text) >> PER_STEP))
    total, place = len(text), text.find("%")
    while place >= 0:
        place += 1
        if text[place : place + 1] == "(":
            place = _after_key(meter, text, place)
        found = SPEC.match(text, place)
        assert found is not None  # every part of it may be empty
        total += arguments + sum(_width(digits) for digits in found.groups(""))
        meter.spend(1)
        place = text.find("%", found.end() + 1)  # a %% ends here, too
    meter.need(total)


def _after_key(meter: Meter, text: str, place: int) -> int:
    """The index after the key in parentheses that opens at `place`. Parentheses may be nested."""
    depth = 0
    for end in range(place, len(text)):
        depth += (text[end] == "(") - (text[end] == ")")
        if depth == 0:
            meter.spend((end - place) >> 2)
            return end + 1
    return len(text)


def _width(digits: str) -> int:
    if digits == "*" or len(digits) > 5 or int(digits or 0) > WIDEST:
        raise OverBudget(f"it pads a value to more than {WIDEST} characters, or does not write how many")
    return int(digits or 0)


def check_format_spec(spec: str) -> int:
    """The most characters to which the str.format `spec` pads a value. Raises OverBudget for more than
    WIDEST.
    """
    return sum(_width(digits) for digits in re.findall(r"\d+", spec))
