"""Jinja's filters and tests, which charge a meter for the data that they read and make before they run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2.filters import make_attrgetter
from jinja2.runtime import LoopContext

from .template_meter import PER_STEP, SMALL, Meter, OverBudget
from .template_text import check_percent, replaced

Arguments = tuple[Any, ...]

CONSTANT_FILTERS = frozenset(
    ("abs", "attr", "count", "d", "default", "first", "items", "last", "length", "random")
)
"""Filters whose time does not depend on the length of the value."""
CONSTANT_TESTS = frozenset(
    (
        "boolean callable defined escaped false filter float integer iterable mapping none number sameas "
        "sequence string test true undefined"
    ).split()
)
SHALLOW = frozenset(
    ("batch", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "slice")
)
"""Filters that do not read inside the items. Other filters and tests that they apply are metered
themselves.
"""
NUMBER_TESTS = frozenset(("divisibleby", "even", "odd"))
SORTING = frozenset(("dictsort", "groupby", "max", "min", "sort", "unique"))
SLOW = frozenset(
    (
        "capitalize",
        "format",
        "pprint",
        "striptags",
        "title",
        "urlencode",
        "urlize",
        "wordcount",
        "wordwrap",
        "xmlattr",
    )
)
"""Filters that process text in Python, some of them several times."""
WRITTEN_OUT = {
    "pprint": 12,
    "tojson": 12,
    "urlencode": 12,
    "urlize": 40,
    "xmlattr": 6,
    "e": 6,
    "escape": 6,
    "forceescape": 6,
}
"""The most characters that a filter makes from one character. Other filters make at most 3 ("ß" in capitals
is "SS").
"""


def metered_filter(
    environment: jinja2.Environment, meter: Meter, name: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """The filter `function` with the name `name`, changed to charge the meter for its work."""
    leading = 1 if hasattr(function, "jinja_pass_arg") else 0
    guard = GUARDS.get(name)
    if name == "sum":
        function = _sum

    @functools.wraps(function)
    def run(*given: Any, **kwargs: Any) -> Any:
        passed, args = (
            given[:leading],
            tuple[Any, ...](
                meter.position_range(value) if isinstance(value, LoopContext) else value
                for value in given[leading:]
            ),
        )
        meter.spend(4)
        if name in SHALLOW and args and hasattr(args[0], "__len__"):
            size = len(args[0])
            meter.spend(size)
            meter.need((2 * SMALL if isinstance(args[0], str) else 2) * size)
        elif name not in CONSTANT_FILTERS:
            weight = sum(map(meter.weigh, args)) + sum(map(meter.weigh, kwargs.values()))
            if name in SORTING:
                meter.spend(weight)
            elif name in SLOW:  # the time of some is quadratic in the text's length
                meter.spend(weight + (weight * weight >> 14))
            meter.need(WRITTEN_OUT.get(name, 3) * weight)
        if name == "join":
            args, kwargs = _joined(environment, meter, args, kwargs), {}
        elif guard is not None:
            guard(meter, *args, **kwargs)
        return meter.made(function(*passed, *args, **kwargs))

    return run


def metered_test(meter: Meter, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The test `function` with the name `name`, changed to charge the meter for the data that it reads."""
    if name in CONSTANT_TESTS:
        return function

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        meter.spend(1 + (sum(map(meter.weigh, args)) >> PER_STEP))
        if name in NUMBER_TESTS and any(isinstance(value, str) for value in args):
            raise TypeError(f"the test {name} is for numbers")  # Python's % would format text
        return function(*args)

    return run


def _sum(environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    """Jinja's filter `sum`, with additions that go through the sandbox."""
    get = make_attrgetter(environment, attribute) if attribute is not None else lambda item: item
    for item in iterable:
        start = environment.call_binop(None, "+", start, get(item))
    return start


_sum.jinja_pass_arg = jinja2.filters.do_sum.jinja_pass_arg  # type: ignore[attr-defined]


def _joined(
    environment: jinja2.Environment, meter: Meter, args: Arguments, kwargs: dict[str, Any]
) -> Arguments:
    """The arguments of the filter `join`, after its items are read and checked against the meter."""
    value, separator, attribute = _join_arguments(*args, **kwargs)
    items = list(meter.position_range(value))
    if attribute is not None:
        items = list(map(make_attrgetter(environment, attribute), items))
    meter.need(sum(map(meter.weigh, items)) + len(items) * meter.weigh(separator))
    return items, separator


def _join_arguments(
    value: Any, d: str = "", attribute: str | int | None = None
) -> tuple[Any, str, str | int | None]:
    return value, d, attribute


def _center(meter: Meter, value: Any, width: int = 80) -> None:
    meter.need(width)


def _indent(meter: Meter, s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> None:
    lines = s.count("\n") + 1 if isinstance(s, str) else 1
    meter.need(lines * (len(width) if isinstance(width, str) else width))


def _replace(meter: Meter, s: Any, old: Any, new: Any, count: int | None = None) -> None:
    meter.need(replaced(s, (old, new)) if isinstance(s, str) else meter.weigh(s) * (meter.weigh(new) + 1))


def _format(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    check_percent(meter, str(value), meter.weigh(kwargs or args))


def _batch(meter: Meter, value: Any, linecount: int, fill_with: Any = None) -> None:
    meter.need(4 * linecount)


def _wordwrap(
    meter: Meter,
    s: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> None:
    meter.need(
        (len(s) // max(width, 1) + 1) * len(wrapstring or "\n") + len(s) * (len(wrapstring or "\n") + 1)
    )


def _round(meter: Meter, value: Any, precision: int = 0, method: str = "common") -> None:
    if abs(precision) > 308:
        raise OverBudget("it rounds to more than 308 digits")


def _tojson(
    meter: Meter,
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> None:
    width = len(indent) if isinstance(indent, str) else int(indent or 0)
    written = meter.weigh(value)
    if width > 0 or separators:
        meter.need(2 * written + (written // SMALL + 1) * (width * 20 + meter.weigh(separators)))


def _urlize(meter: Meter, value: Any, *args: Any, **kwargs: Any) -> None:
    added = meter.weigh(args) + meter.weigh(kwargs)
    meter.need(meter.weigh(value) // 4 * added)


GUARDS: dict[str, Callable[..., None]] = {
    "batch": _batch,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "replace": _replace,
    "round": _round,
    "tojson": _tojson,
    "urlize": _urlize,
    "wordwrap": _wordwrap,
}
