"""Numbers that a caller gives, checked: Python's and NumPy's scalars alike become plain int and float, and each has a range that means something."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import numpy as np

from .errors import InvalidInput
from .said import short

LARGEST_COUNT = 2**31 - 1
"""The most of anything that is counted: more than any context holds, and what an int32 of an engine library holds."""


def whole(value: Any, name: str, least: int, most: int | None = LARGEST_COUNT, of: str = "") -> int:
    """`value` as an int. Raises AntiphonError unless it is a whole number (no bool) from `least` to `most`; `of` says of what, as in "frames"."""
    is_too_large = is_whole(value) and most is not None and int(value) > most
    if not is_whole(value) or int(value) < least or is_too_large:
        is_open = most is None or (most == LARGEST_COUNT and not is_too_large)
        upper = f" of at least {least:,}" if is_open else f" from {least:,} to {most:,}"
        raise InvalidInput(f"{name} is {short(value)}, expected an integer{upper}{f' {of}' if of else ''}.")
    return int(value)


def number(value: Any, name: str, least: float, most: float, of: str = "", or_zero: bool = False) -> float:
    """`value` as a float. Raises AntiphonError unless it is a number (no bool) from `least` to `most`, or 0 where `or_zero`; `of` says of what."""
    found = as_float(value)
    if found is None or not (least <= found <= most or (or_zero and found == 0)):  # nor of NaN
        raise InvalidInput(f"{name} is {short(value)}, expected {'0 or ' if or_zero else ''}a number from {least:,g} to {most:,g}{f' {of}' if of else ''}.")
    return found


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer of Python or NumPy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def as_float(value: Any) -> float | None:
    """`value` as a float, None where it is no real number; True and False are none. float32 is taken as the decimal number that it prints as."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(str(value)) if isinstance(value, np.floating) else float(value)
    except (OverflowError, ValueError):
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
