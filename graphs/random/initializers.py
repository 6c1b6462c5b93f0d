"""Distributions of random tensors, and the tensors of the layers that all families share.

Scales keep activations near unit variance. The weights of a product over `fan_in` inputs have std
gain / sqrt(fan_in). All residual branches of a decoder together add a fixed variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

# Mean squares for unit normal inputs: of silu(x) * y, and of gelu(x) and silu(x). The next projection
# compensates them.
GATED_POWER = 0.355
GELU_POWER = 0.425
BIAS = 0.05
NORM_SPREAD = 0.1
# Variance that all branches of a decoder together add to its input. At this value the next id depends on the
# whole context, and greedy decoding does not repeat the last ids in a cycle. A larger value, or a larger
# QUERY_NORM, makes it repeat (measured with four seeds).
BRANCH_POWER = 4.0
# Attention averages values, which reduces their variance. A larger output (ATTENTION_GAIN) and sharper scores
# (QUERY_NORM) compensate this.
ATTENTION_GAIN = 1.5
QUERY_NORM = 1.5
# Std of the logits: wide margins between the best ids, and a softmax that is neither flat nor a single peak.
HEAD_STD = 4.0
FAINT = 0.1
STOP = 0.6


@dataclass(frozen=True)
class Draw:
    """A normal distribution, mean + std * N(0, 1), with optional adjustments."""

    std: float
    mean: float = 0.0
    zero_sum: bool = False
    """Subtract the mean of each output channel, so that the layer ignores a common offset of its inputs."""

    output_axis: int = 0
    """The axis of the output channels (1 in transposed convolutions)."""

    faint_rows: tuple[int, ...] = ()
    """Rows scaled by `FAINT`: ids that must almost never be chosen."""

    stop_row: int = -1
    """The row scaled by `stop_scale`: the id that ends a sequence, to be chosen rarely. -1: no such row."""

    stop_scale: float = STOP


@dataclass(frozen=True)
class Uniform:
    """A uniform distribution from `low` to `high`; `logarithm` stores the logarithms of the values."""

    low: float
    high: float
    logarithm: bool = False


@dataclass(frozen=True)
class CodePrompts:
    """Codec prompts [speakers, groups, frames]: random codes below `codebook`, then -1 as padding.

    `frames`: number of frames of each speaker.
    """

    codebook: int
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the per-expert layout. `dtype` "" means the dtype of the checkpoint."""

    name: str
    shape: tuple[int, ...]
    draw: Draw | Uniform | CodePrompts = field(compare=False)
    dtype: str = ""

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def linear(prefix: str, rows: int, columns: int, bias: bool = False, gain: float = 1.0) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.weight", (rows, columns), Draw(gain / math.sqrt(columns)))
    if bias:
        yield Tensor(f"{prefix}.bias", (rows,), Draw(BIAS))


def norm(prefix: str, size: int, bias: bool = False, mean: float = 1.0) -> Iterator[Tensor]:
    yield Tensor(f"{prefix}.weight", (size,), Draw(NORM_SPREAD, mean=mean))
    if bias:
        yield Tensor(f"{prefix}.bias", (size,), Draw(BIAS))


def embedding(name: str, rows: int, columns: int, std: float) -> Tensor:
    return Tensor(name, (rows, columns), Draw(std))


def head(
    name: str,
    rows: int,
    columns: int,
    faint_rows: tuple[int, ...] = (),
    stop_row: int = -1,
    stop_scale: float = STOP,
) -> Tensor:
    return Tensor(
        name,
        (rows, columns),
        Draw(HEAD_STD / math.sqrt(columns), faint_rows=faint_rows, stop_row=stop_row, stop_scale=stop_scale),
    )


def feed_forward(prefix: str, hidden: int, width: int, branch: float) -> Iterator[Tensor]:
    yield from linear(f"{prefix}.gate_proj", width, hidden)
    yield from linear(f"{prefix}.up_proj", width, hidden)
    yield from linear(f"{prefix}.down_proj", hidden, width, gain=branch / math.sqrt(GATED_POWER))
