"""Imports the packages of the extra `quality` on first use."""

from __future__ import annotations

import importlib
from typing import Any

from ...runtime.bundle.errors import require_extra
from ...runtime.engines.onnxruntime import library as onnxruntime_import  # noqa: F401  # before any package that imports ONNX Runtime by itself: piper, faster_whisper, speechmos


def needed(name: str) -> Any:
    """The module `name`. Raises MissingExtra, which tells how to install it."""
    require_extra("quality", "Measuring speech", name)
    return importlib.import_module(name)
