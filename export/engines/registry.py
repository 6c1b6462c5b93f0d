"""Engine builders by the name of their kind.

A kind is a module with a function `builder`, imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module

from ...runtime.bundle.errors import UnsupportedTarget
from ...runtime.bundle.said import short
from .base import EngineBuilder

_MODULES = {"onnxruntime": "antiphon.export.engines.onnxruntime.builder"}
DEFAULT = "onnxruntime"


def register_builder(kind: str, module: str) -> None:
    """Let `antiphon build --engine KIND` use `module`,
    the full name of a module whose `builder()` makes an EngineBuilder.
    """
    _MODULES[kind] = module


def builder_kinds() -> tuple[str, ...]:
    """The names of all kinds that can be built."""
    return tuple(_MODULES)


def find_builder(kind: str) -> EngineBuilder:
    """The builder of `kind`. Raises UnsupportedTarget for an unknown kind."""
    if kind not in _MODULES:
        raise UnsupportedTarget(f"Unknown engine {short(kind)}; expected one of {', '.join(_MODULES)}.")
    made: EngineBuilder = import_module(_MODULES[kind]).builder()
    return made
