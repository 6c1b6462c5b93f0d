"""Cases of CausalConvState: calls with known answers for every program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...runtime.kernels.contract import Program
from ..tools.case import Case, rounded
from .reference import causal_conv_state

TOLERANCE = {"bfloat16": 5e-3, "float16": 7e-4, "float32": 1e-6}
"""Half a rounding step of the dtype, plus a margin."""


def cases(program: Program, rng: np.random.Generator) -> Iterator[Case]:
    """No tokens, ragged and empty rows, lengths shorter than the window, sizes that end within a block."""
    if program.name.endswith("decode"):
        calls = {
            "one stream": ([1], 1, 64),
            "with an empty row": ([1, 0, 1], 1, 80),
            "ragged": ([4, 2, 3], 4, 16),
        }
    else:
        calls = {
            "shorter than the window": ([2, 1, 0, 3], 3, 48),
            "two blocks of tokens": ([17, 16, 15], 18, 16),
            "two blocks of channels": ([5], 5, 1040),
        }
    calls["no tokens"] = ([0, 0], 0, 48)
    for name, (lengths, tokens, channels) in calls.items():
        yield make_case(program, name, rng, lengths, tokens, channels)


def make_case(
    program: Program, name: str, rng: np.random.Generator, lengths: Sequence[int], tokens: int, channels: int
) -> Case:
    """Random inputs of these sizes; padding rows hold large values."""
    dtype, state = program.tensor("x").dtype, program.tensor("past").dtype
    x = rng.standard_normal((len(lengths), tokens, channels))
    x[np.arange(tokens) >= np.array(lengths)[:, None]] = 1000.0
    inputs = {
        "x": rounded(x, dtype),
        "weight": rounded(rng.standard_normal((channels, 1, 4)), dtype),
        # A state holds earlier rows of x.
        "past": rounded(rounded(rng.standard_normal((len(lengths), 3, channels)), dtype), state),
        "query_length": np.array(lengths, np.int64),
    }
    return Case(
        name,
        program,
        inputs,
        {},
        lambda: dict(zip(("y", "present"), causal_conv_state(**inputs), strict=True)),
        TOLERANCE[dtype],
    )
