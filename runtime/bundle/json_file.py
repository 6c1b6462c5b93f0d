"""The one way to read a JSON object from another source's file: size and depth are limited, numbers are
finite, and each error is one sentence.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from .errors import AntiphonError
from .said import article, reason, short_path

LARGEST_FILE = 64 * 2**20
"""Bytes. The published files have up to 11 MB (a tokenizer); an index of 100,000 tensors has about 10 MB."""
DEEPEST = 40
"""Levels of nesting; the published files have up to 7."""
MOST_CONTAINERS, MOST_VALUES = 2**20, 2**22
"""The most lists and objects, and the most values, of one file. Each takes up to 200 bytes of memory, even if
it is short in the file. The largest published files, tokenizers, have 500,000 and 2,000,000.
"""
REPAIR = "download the file again"
HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escape of half a surrogate pair; its other half may be missing."""


def read_json_object(path: Path, repair: str = REPAIR, largest: int = LARGEST_FILE) -> dict[str, Any]:
    """The JSON object in the file at `path`. `repair` says what to do and ends every error sentence.

    Raises AntiphonError if the file cannot be read, has more than `largest` bytes, is not UTF-8, is not JSON,
    or is not an object. Raises it also for nesting deeper than DEEPEST, more than MOST_CONTAINERS lists and
    objects, more than MOST_VALUES values, Infinity, NaN, a number beyond float64, and half a surrogate pair.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise AntiphonError(
            f"{short_path(path)} cannot be read ({error.strerror or reason(error)}); "
            f"make it readable or {repair}."
        ) from None
    if len(content) > largest:
        raise AntiphonError(
            f"{short_path(path)} has more than {largest:,} bytes, which no file of its kind needs; {repair}."
        )
    return parse_json_object(content, short_path(path), repair)


def parse_json_object(content: bytes, where: str, repair: str = REPAIR) -> dict[str, Any]:
    """The JSON object in `content`, UTF-8; `where` names it in errors.

    Raises AntiphonError as `read_json_object` does. Of a name that an object has twice the last one counts,
    as in other readers.
    """
    containers = content.count(b"{") + content.count(b"[")
    if containers > MOST_CONTAINERS or containers + content.count(b",") > MOST_VALUES:
        raise AntiphonError(
            f"{where} holds more lists, objects or values than any file of its kind; {repair}."
        )
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_finite, parse_float=_finite)
        if HALF_PAIR.search(content):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise AntiphonError(
            f"{where} holds half of a surrogate pair, which is no character; {repair}."
        ) from None
    except UnicodeDecodeError as error:
        raise AntiphonError(f"{where} is not UTF-8 text (byte {error.start}); {repair}.") from None
    except RecursionError:
        raise AntiphonError(
            f"{where} is nested deeper than {DEEPEST} levels, which no file of its kind is; {repair}."
        ) from None
    except ValueError as error:
        raise AntiphonError(f"{where} is not valid JSON ({reason(error)}); {repair}.") from None
    if not isinstance(value, dict):
        raise AntiphonError(
            f"{where} holds {article(type(value).__name__)} where an object was expected; {repair}."
        )
    if _is_deeper(value, DEEPEST):
        raise AntiphonError(
            f"{where} is nested deeper than {DEEPEST} levels, which no file of its kind is; {repair}."
        )
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is no finite number")
    return number


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects in `value` are nested deeper than `levels`. Works level by level, since
    recursion has its own limit.
    """
    row = [value]
    for _ in range(levels):
        row = [
            item
            for node in row
            for item in (node.values() if isinstance(node, dict) else node)
            if isinstance(item, dict | list)
        ]
        if not row:
            return False
    return True
