"""One input with a known answer; the module `cases` of every op's folder makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ...runtime.kernels.contract import Program


@dataclass(frozen=True)
class Case:
    """One call of one program."""

    name: str
    program: Program
    inputs: Mapping[str, np.ndarray]
    """By name: floats as float64 already rounded to the program's dtype (see `rounded`),
    float8_e4m3fn as uint8 bits, the rest as it is.
    """
    attributes: Mapping[str, int]
    expected: Callable[[], Mapping[str, np.ndarray]]
    """The outputs to compare, from the NumPy reference in float64."""
    tolerance: float
    """Largest allowed |found - expected| divided by the largest |expected| of the output;
    0 for integers and truths.
    """


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` as float64, rounded to the numbers that `dtype` has."""
    kinds = {
        "bfloat16": ml_dtypes.bfloat16,
        "float16": np.float16,
        "float32": np.float32,
        "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    }
    return np.asarray(values).astype(kinds[dtype]).astype(np.float64)
