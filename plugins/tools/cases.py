"""Inputs with known answers for every program, run by the interpreter in tests and by `antiphon plugins
check` on a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

import numpy as np

from ...runtime.kernels.contract import Program
from ..registry import FOLDERS
from .case import Case


def cases(program: Program, seed: int = 0) -> Iterator[Case]:
    """Small cases for `program`, ordinary shapes and edge cases; they take seconds in the interpreter."""
    yield from import_module(f"..{FOLDERS[program.op]}.cases", __package__).cases(
        program, np.random.default_rng(seed)
    )


def errors(case: Case, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The worst error of each expected output, as defined by `Case.tolerance`.

    It is infinity if shapes differ or a value is not finite.
    """
    return {
        name: _error(np.asarray(expected, np.float64), np.asarray(outputs[name], np.float64))
        for name, expected in case.expected().items()
    }


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    if not expected.size:
        return 0.0
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
