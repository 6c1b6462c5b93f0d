"""Evaluate sizes given as text. Contracts write grids, shapes and scalars in this small language.

It has only what TensorRT's symbolic sizes support: names, integers, + - * //, ceil_div, min and max;
conditions compare two such sizes.
"""

from __future__ import annotations

import ast
import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "ceil_div": lambda a, b: -(-a // b),
    "min": min,
    "max": max,
}


def evaluate(
    text: str, symbols: Mapping[str, Any], functions: Mapping[str, Callable[[Any, Any], Any]] = FUNCTIONS
) -> Any:
    """The value of `text` for the given `symbols`: an int, or a symbolic integer if `symbols` and `functions`
    have such.

    Conditions (`a <= b`, `a % 16 == 0 and b > 1`) give a bool, or a symbolic one for symbolic integers.
    Raises ValueError for anything outside the language above, KeyError for an unknown name.
    """
    return _value(_parsed(text), symbols, functions)


def names(text: str) -> set[str]:
    """The symbols that `text` reads."""
    tree = _parsed(text)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called}


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _value(
    node: ast.expr, symbols: Mapping[str, Any], functions: Mapping[str, Callable[[Any, Any], Any]]
) -> Any:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return symbols[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, symbols, functions), _value(right, symbols, functions))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, symbols, functions), _value(right, symbols, functions))
        case ast.BoolOp(op=ast.And(), values=[head, *rest]):
            result = _value(head, symbols, functions)
            for part in rest:  # `and` would convert a symbolic condition to bool
                result = (
                    result and _value(part, symbols, functions)
                    if isinstance(result, bool)
                    else result & _value(part, symbols, functions)
                )
            return result
        case ast.Call(func=ast.Name(id=name), args=[first, *others], keywords=[]) if name in functions:
            value = _value(first, symbols, functions)
            for other in others:
                value = functions[name](value, _value(other, symbols, functions))
            return value
    raise ValueError(
        f"A size may hold names, integers, + - * //, ceil_div, min and max; found {ast.unparse(node)!r}"
    )
