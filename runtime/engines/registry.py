"""Engine kinds by name.

A kind is a module with a function `open_engine` (see base.OpenEngine) and a tuple `TARGETS`, the names of
what it opens engines for. It is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..bundle.errors import UnsupportedTarget
from ..bundle.said import short
from .base import OpenEngine

_MODULES = {"onnxruntime": "antiphon.runtime.engines.onnxruntime.engine"}


def register_engine(kind: str, module: str) -> None:
    """Let bundles whose stages are of `kind` be opened by `module`, the full name of a module."""
    _MODULES[kind] = module


def engine_kinds() -> tuple[str, ...]:
    """The names of all kinds."""
    return tuple(_MODULES)


def find_engine(kind: str, stage: str) -> OpenEngine:
    """The function that opens engines of `kind`.

    Raises UnsupportedTarget, which names `stage`, for an unknown kind.
    """
    open_engine: OpenEngine = _module(kind, stage).open_engine
    return open_engine


def engine_targets(kind: str, stage: str) -> tuple[str, ...]:
    """What engines of `kind` are opened for: cpu, sm90 ... Raises UnsupportedTarget as find_engine does."""
    targets: tuple[str, ...] = _module(kind, stage).TARGETS
    return targets


def _module(kind: str, stage: str) -> ModuleType:
    if kind not in _MODULES:
        known = ", ".join(_MODULES)
        raise UnsupportedTarget(
            f"Stage {stage} was built for the engine {short(kind)}; this Antiphon runs {known}; "
            "build the bundle for it."
        )
    return import_module(_MODULES[kind])
