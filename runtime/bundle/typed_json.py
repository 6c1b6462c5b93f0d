"""Plain values of JSON into the dataclasses that describe them; an error names the place in the file."""

# No library does this as well. msgspec 0.23 writes `stages[...].parameters` for any name of a dict, tells
# neither the value found nor the choices of a Literal, and takes integers beyond 64 bits and halves of
# surrogate pairs: what adds these is longer than this module. cattrs 26.2 makes integers of "4" and of true,
# and text of 3, without an error.

from __future__ import annotations

import dataclasses
import types
import typing
from functools import cache
from typing import Any, Literal

from .errors import AntiphonError, BrokenBundle
from .said import short

SMALLEST, LARGEST = -(2**63), 2**63 - 1


def typed(kind: Any, value: Any, where: str) -> Any:
    """`value`, read from JSON, as the type `kind`: a dataclass, a container or union of such,
    Literal, Any, or a plain type.

    Integers are of 64 bits and text is Unicode. Fields that `kind` does not have are left out. Raises
    AntiphonError that names the place after `where`.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _record(kind, value, where)
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        for key in value:
            _expect(_is_unicode(key), where, "names that are Unicode", key)
        return {key: typed(arguments[1], item, f"{where}.{key:.60}") for key, item in value.items()}
    if origin in (tuple, list):
        _expect(isinstance(value, list), where, "a list", value)
        return origin(typed(arguments[0], item, f"{where}[{place}]") for place, item in enumerate(value))
    if origin is Literal:
        _expect(isinstance(value, str) and value in arguments, where, f"one of {', '.join(arguments)}", value)
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        arguments = tuple(option for option in arguments if option is not types.NoneType)
        if len(arguments) == 1:
            return typed(arguments[0], value, where)
        for option in arguments:
            try:
                return typed(option, value, where)
            except AntiphonError:
                continue
        raise BrokenBundle(f"{where} is {short(value)}, expected {kind}; build the bundle again.")
    accepted = isinstance(value, int | float if kind is float else kind) and (
        kind is bool or not isinstance(value, bool)
    )
    _expect(accepted, where, f"a value of type {kind.__name__}", value)
    _expect(not isinstance(value, int) or SMALLEST <= value <= LARGEST, where, "an integer of 64 bits", value)
    _expect(not isinstance(value, str) or _is_unicode(value), where, "text that is Unicode", value)
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where, "an object", value)
    hints = _hints(kind)
    given = {}
    for entry in dataclasses.fields(kind):
        if entry.name in value:
            given[entry.name] = typed(hints[entry.name], value[entry.name], f"{where}: {entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise BrokenBundle(f"{where} lacks the field {entry.name}; build the bundle again.")
    return kind(**given)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _expect(holds: bool, where: str, expected: str, found: object) -> None:
    if not holds:
        raise BrokenBundle(f"{where} is {short(found)}, expected {expected}; build the bundle again.")
