"""The Jinja sandbox of chat templates: the functions of transformers' sandbox, all of them metered in time
and memory.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Callable
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from jinja2.utils import Namespace
from markupsafe import Markup

from .template_counting import MeteredCode
from .template_filters import metered_filter, metered_test
from .template_meter import CONTAINERS, DEEPEST, ESCAPED, LARGEST_INTEGER, PER_STEP, Meter, OverBudget
from .template_text import METHODS, check_format_spec, check_method, check_percent

DICT_ATTRIBUTES = frozenset(dir(dict))


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. Call `meter.begin` before compiling or rendering; use it in one thread
    at a time.

    Source of the settings, of `raise_exception`, `strftime_now`, `tojson` and the `generation` tag:
    transformers.utils.chat_template_utils (5.23).
    """

    code_generator_class = MeteredCode
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self) -> None:
        # Not optimized: no part of a template runs before rendering.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[_GenerationTag, jinja2.ext.loopcontrols],
        )
        self.meter = Meter()
        self.guard = ""
        self.spend, self.need = self.meter.spend, self.meter.need
        filters: dict[str, Callable[..., Any]] = {**self.filters, "tojson": self._tojson}
        self.filters = {
            name: metered_filter(self, self.meter, name, function) for name, function in filters.items()
        }
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: metered_test(self.meter, name, function) for name, function in tests.items()}
        del self.globals["lipsum"]  # makes random text
        self.globals |= {
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
            "dict": _Dict(),
            "namespace": _Namespace,
        }

    def weighed(self, value: Any) -> Any:
        """Meter `value` before a comparison or hash, and return it."""
        self.meter.weigh(value)
        return value

    def searched(self, value: Any) -> Any:
        """Meter `value` before a search in it for text of unknown length, and return it."""
        self.meter.spend(self.meter.weigh(value) >> 3)
        return value

    def written(self, value: Any) -> Any:
        """Meter `value` before it is written, and return it."""
        self.spend(0, len(value) if type(value) is str else self.meter.weigh(value))
        return value

    def copied(self, value: Any) -> Any:
        """Meter `value` before a slice of it is made, and return it."""
        if isinstance(value, str | list | tuple):
            self.spend(len(value) >> PER_STEP, len(value) if isinstance(value, str) else 2 * len(value))
        return value

    def is_in(self, item: Any, container: Any) -> bool:
        """`item in container`, metered."""
        weight = self.meter.weigh(item)
        if isinstance(container, str):
            self.spend((len(container) >> PER_STEP) + (len(container) * min(weight, 100) >> 10))
        elif not isinstance(container, dict):
            self.meter.weigh(container)
        return item in container

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Jinja's lookup, with a shortcut for the most common case, a key of a message."""
        if type(obj) is dict and attribute not in DICT_ATTRIBUTES:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Jinja's lookup, metered. An attribute of filters (`map(attribute="a.b")`) calls it once for each
        part.
        """
        self.spend(1)
        if type(argument) is str and type(obj) is dict and argument in obj:
            return obj[argument]
        if isinstance(argument, tuple):
            self.meter.weigh(argument)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may use the attribute. Of Python's own types, only the methods in METHODS, whose
        cost is known.
        """
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if (
            not callable(value)
            or not isinstance(value, types.BuiltinMethodType | types.MethodType)
            or isinstance(obj, _Dict)
        ):
            return True
        for kind, names in METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        # methods of Jinja's own objects; the rest belongs to bytes, numbers, ranges and views of dicts
        return isinstance(value, types.MethodType)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        """Call `__obj` after its cost is charged. At most DEEPEST calls may be nested."""
        self, target = __self, __obj
        meter = self.meter
        meter.spend(4)
        if meter.depth >= DEEPEST:
            raise OverBudget(f"it calls macros more than {DEEPEST} levels deep")
        meter.depth += 1
        try:
            if isinstance(target, types.BuiltinMethodType):
                owner, name = target.__self__, target.__name__
                if isinstance(owner, str):
                    args = check_method(meter, owner, name, args, kwargs)
                else:
                    meter.spend(
                        sum(map(meter.weigh, (owner, *args) if name in ("copy", "count", "index") else args))
                        >> PER_STEP
                    )
                if isinstance(owner, Markup):
                    self.need(ESCAPED * (len(owner) + sum(map(meter.weigh, args))))
                return meter.made(super().call(__context, target, *args, **kwargs))
            if isinstance(target, Macro | LoopContext | BlockReference):
                return super().call(__context, target, *args, **kwargs)
            if target is not _Namespace:
                meter.spend(0, sum(map(meter.weigh, args)) + sum(map(meter.weigh, kwargs.values())))
            return super().call(__context, target, *args, **kwargs)
        finally:
            meter.depth -= 1

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator after its cost is charged."""
        if operator == "+" and type(left) is str and type(right) is str:
            size = len(left) + len(right)
            self.spend(size >> PER_STEP, size)
            return left + right
        if isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple):
            self._check_sequences(operator, left, right)
        elif isinstance(left, int) and isinstance(right, int):
            bits = max(left.bit_length(), right.bit_length())
            if bits > LARGEST_INTEGER or operator == "**" and left.bit_length() * right > LARGEST_INTEGER:
                raise OverBudget(f"it computes with numbers of more than {LARGEST_INTEGER} bits")
        elif isinstance(left, CONTAINERS) or isinstance(right, CONTAINERS):
            self.spend(0, self.meter.weigh(left) + self.meter.weigh(right))
        return self.meter.made(super().call_binop(context, operator, left, right))

    def _check_sequences(self, operator: str, left: Any, right: Any) -> None:
        grows = ESCAPED if isinstance(left, Markup) or isinstance(right, Markup) else 1
        if operator == "%" and isinstance(left, str):
            check_percent(self.meter, left, grows * self.meter.weigh(right))
        elif operator == "*":
            times = max((value for value in (left, right) if isinstance(value, int)), default=0)
            self.need(
                max(
                    (2 * len(value) for value in (left, right) if isinstance(value, str | list | tuple)),
                    default=0,
                )
                * times
            )
        else:
            size = sum(len(value) for value in (left, right) if isinstance(value, str | list | tuple))
            self.spend(size >> PER_STEP)
            self.need(2 * size * grows)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """str.format and str.format_map, with each field's width checked and its output metered."""
        if not isinstance(value, types.BuiltinMethodType | types.MethodType) or value.__name__ not in (
            "format",
            "format_map",
        ):
            return None
        text = value.__self__
        if not isinstance(text, str):
            return None
        formatter = (
            _EscapingFormatter(self, escape=text.escape) if isinstance(text, Markup) else _Formatter(self)
        )

        def format_text(*args: Any, **kwargs: Any) -> str:
            self.spend(1 + (len(text) >> 3), len(text))
            return type(text)(formatter.vformat(text, args, kwargs))

        def format_map(mapping: Any) -> str:
            return format_text(**mapping)

        return format_text if value.__name__ == "format" else format_map

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        # Jinja's own filter escapes HTML characters, which chat templates do not need.
        text = json.dumps(
            value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
        )
        # The guard of special tokens is not escaped, so that it can be found again.
        return (
            re.sub(
                "[^\\x00-\\x7f]",
                lambda match: match[0] if match[0] == self.guard else json.dumps(match[0])[1:-1],
                text,
            )
            if ensure_ascii
            else text
        )


class _Formatter(SandboxedFormatter):
    """The sandbox's formatter: meters each field before it is written and checks its width."""

    def __init__(self, sandbox: Sandbox, **options: Any) -> None:
        super().__init__(sandbox, **options)
        self._sandbox = sandbox

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._sandbox.written(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        self._sandbox.written(value)
        self._sandbox.need(check_format_spec(format_spec))
        return self._sandbox.meter.made(super().format_field(value, format_spec))


class _EscapingFormatter(_Formatter, SandboxedEscapeFormatter):
    """The same for text that is marked as safe; inserted values are escaped."""


class _Dict:
    """`dict` for templates: only calls and `fromkeys`."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` for templates. Its content is not written out, and names must not begin with an
    underscore.
    """

    def __init__(*args: Any, **kwargs: Any) -> None:
        Namespace.__init__(args[0])
        for name, value in dict(*args[1:], **kwargs).items():
            args[0][name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError("a name in a namespace begins with an underscore")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks an assistant's words for training. Its body is rendered unchanged, in its own
    scope.
    """

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _raise_exception(message: Any) -> None:
    raise jinja2.TemplateError(str(message))


def _strftime_now(layout: str) -> str:
    if len(layout) > 1000:
        raise OverBudget("it writes the time in a layout of more than 1000 characters")
    return datetime.now().strftime(layout)
