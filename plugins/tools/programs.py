"""All programs of all ops, per target."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from ...runtime.bundle.errors import AntiphonError
from ...runtime.kernels.contract import GPU_TARGETS, Program
from ..registry import FOLDERS


def programs(target: str, ops: Iterable[str] = ()) -> list[Program]:
    """Every program for `target` (sm80 ...) of the named ops (default: all). Plain data: needs no Triton.

    Raises AntiphonError for an unknown target or op.
    """
    if target not in GPU_TARGETS:
        raise AntiphonError(
            f"There is no target {target!r}; kernels are compiled for {', '.join(GPU_TARGETS)}."
        )
    wanted = list(ops) or list(FOLDERS)
    for op in wanted:
        if op not in FOLDERS:
            raise AntiphonError(f"There is no op {op!r}; the ops are {', '.join(FOLDERS)}.")
    return [
        program
        for op in wanted
        for program in import_module(f"..{FOLDERS[op]}.programs", __package__).programs(target)
    ]


def kernel_function(name: str) -> Any:
    """The Triton function that a Launch names as FOLDER.function."""
    folder, function = name.split(".")
    return getattr(import_module(f"..{folder}.kernels", __package__), function)
