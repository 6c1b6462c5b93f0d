"""Check numbers from a caller: scalars of Python and NumPy become plain int and float within a range."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

from .errors import InvalidInput
from .said import short

LARGEST_COUNT = 2**31 - 1
"""The largest count: more than any context holds, and the largest int32 of an engine library."""


def whole(value: Any, name: str, least: int, most: int | None = LARGEST_COUNT, of: str = "") -> int:
    """`value` as an int; `of` is the unit in errors, such as "frames".

    Raises AntiphonError unless it is a whole number (not a bool) from `least` to `most`.
    """
    is_too_large = is_whole(value) and most is not None and int(value) > most
    if not is_whole(value) or int(value) < least or is_too_large:
        is_open = most is None or (most == LARGEST_COUNT and not is_too_large)
        upper = f" of at least {least:,}" if is_open else f" from {least:,} to {most:,}"
        raise InvalidInput(f"{name} is {short(value)}, expected an integer{upper}{f' {of}' if of else ''}.")
    return int(value)


def number(value: Any, name: str, least: float, most: float, of: str = "", or_zero: bool = False) -> float:
    """`value` as a float; `of` is the unit in errors.

    Raises AntiphonError unless it is a number (not a bool) from `least` to `most`, or 0 if `or_zero`.
    """
    found = as_float(value)
    if found is None or not (least <= found <= most or (or_zero and found == 0)):  # NaN is refused, too
        raise InvalidInput(
            f"{name} is {short(value)}, expected {'0 or ' if or_zero else ''}a number from {least:,g} "
            f"to {most:,g}{f' {of}' if of else ''}."
        )
    return found


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy, but not a bool."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_float(value: Any) -> float | None:
    """`value` as a float; None if it is not a real number or is a bool. A float32 becomes the decimal number
    that it prints as.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(str(value)) if isinstance(value, np.floating) else float(value)
    except (OverflowError, ValueError):
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
