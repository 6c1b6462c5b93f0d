"""Inputs with known answers for every program, run by the interpreter in tests and by `antiphon plugins
check` on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

import ml_dtypes
import numpy as np

from ...runtime.kernels.contract import Program
from ..registry import FOLDERS


@dataclass(frozen=True)
class Case:
    """One call of one program."""

    name: str
    program: Program
    inputs: Mapping[str, np.ndarray]
    """By name: floats as float64, already rounded to the program's dtype (see `rounded`); float8_e4m3fn as
    uint8 bits; other types unchanged."""
    attributes: Mapping[str, int]
    expected: Callable[[], Mapping[str, np.ndarray]]
    """The outputs to compare, from the NumPy reference in float64."""
    tolerance: float
    """Largest allowed |found - expected| / largest |expected| of the output; 0 for integers and booleans."""


def cases(program: Program, seed: int = 0) -> Iterator[Case]:
    """Small cases for `program`, ordinary shapes and edge cases; they take seconds in the interpreter."""
    yield from import_module(f"..{FOLDERS[program.op]}.cases", __package__).cases(program, np.random.default_rng(seed))


def errors(case: Case, outputs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The worst error of each expected output, as defined by `Case.tolerance`.

    It is infinity if shapes differ or a value is not finite.
    """
    return {name: _error(np.asarray(expected, np.float64), np.asarray(outputs[name], np.float64)) for name, expected in case.expected().items()}


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` rounded to the numbers of `dtype`, as float64."""
    kinds = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32, "float8_e4m3fn": ml_dtypes.float8_e4m3fn}
    return np.asarray(values).astype(kinds[dtype]).astype(np.float64)


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    if not expected.size:
        return 0.0
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
