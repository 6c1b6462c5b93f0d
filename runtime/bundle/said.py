"""Describe given values in error sentences: short, and without any object's repr."""

from __future__ import annotations

import re
from pathlib import PurePath

import numpy as np

LONGEST = 200
"""The most letters of a given value in a sentence."""
_KINDS = (("list", list), ("tuple", tuple), ("set", (set, frozenset)), ("dict", dict))
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


def short(value: object) -> str:
    """`value` for an error sentence, in at most LONGEST letters. Strings are quoted and cut, numbers are
    kept, and other values are described by type or size.

    The repr of the caller's own classes is never used, since it may be long, private, or raise.
    """
    if value is None or isinstance(value, bool | np.bool_):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, PurePath):
        return _quoted(str(value))
    if isinstance(value, int | float | np.floating | np.integer):
        return _number(value)
    if isinstance(value, np.ndarray):
        return _cut(f"an array of shape {list(value.shape)}")
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{memoryview(value).nbytes:,} bytes"
    for name, kind in _KINDS:
        if isinstance(value, kind):
            return f"a {name} of {value.__len__()}"  # type: ignore[attr-defined]
    return article(type(value).__name__)


def article(noun: str) -> str:
    """`noun` with a or an, shortened if it is long."""
    noun = noun if len(noun) <= 60 else f"{noun[:57]}..."
    return f"{'an' if noun[:1].lower() in set('aeiou') else 'a'} {noun}"


def short_path(path: object) -> str:
    """A path without quotes, in at most LONGEST letters: its beginning and its end."""
    text = str(path)
    return text if len(text) <= LONGEST else f"{text[:100]}...{text[-(LONGEST - 103) :]}"


def reason(error: BaseException) -> str:
    """The message of another library's error, on one line, shortened, without addresses of objects."""
    words = "".join(letter if letter.isprintable() else " " for letter in str(error)).split()
    return _cut(_ADDRESS.sub("the data", " ".join(words))) or type(error).__name__


def _quoted(text: str) -> str:
    shown = str.__repr__(str.__getitem__(text, slice(0, LONGEST)))
    if str.__len__(text) <= LONGEST and len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST - 4].rstrip(chr(92))}...{shown[0]}"


def _number(value: int | float | np.floating | np.integer) -> str:
    if isinstance(value, float):
        return float.__repr__(value)
    if not isinstance(value, int):
        return str(value)
    bits = int.bit_length(value)
    return int.__repr__(value) if bits <= 256 else f"an integer of {bits:,} bits"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
