"""How the random tensors of a checkpoint are drawn: the kinds of draw, and the layers that every family is made of.

Scales keep activations near unit variance: a product over `fan_in` inputs is drawn with std gain / sqrt(fan_in), and branches of a
residual stack share a variance budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

# Mean square of silu(x) * y and of gelu(x), silu(x) for unit normal inputs: what a following projection must undo.
GATED_POWER = 0.355
GELU_POWER = 0.425
BIAS = 0.05
NORM_SPREAD = 0.1
# Variance that all branches of a decoder add to that of its input: so much that the next id hangs on the whole context, and
# greedy decoding does not fall into a cycle of last ids. More, or sharper attention, brings repetition back (measured over four seeds).
BRANCH_POWER = 4.0
# Averaging over the context shrinks values; sharper scores and a larger output keep attention audible.
ATTENTION_GAIN = 1.5
QUERY_NORM = 1.5
# Logits of this std for a normalised state: wide margins between the best ids, and a softmax that is neither flat nor one peak.
HEAD_STD = 4.0
FAINT = 0.1
STOP = 0.6


@dataclass(frozen=True)
class Draw:
    """How values are drawn: mean + std * N(0, 1), then optional adjustments."""

    std: float
    mean: float = 0.0
    zero_sum: bool = False
    """Remove the mean over everything but the output channel, so that a common offset does not pass."""

    output_axis: int = 0
    """The output channel's axis (1 in transposed convolutions)."""

    faint_rows: tuple[int, ...] = ()
    """Rows scaled by `FAINT`: ids that must hardly ever win."""

    stop_row: int = -1
    """The row scaled by `stop_scale` (-1: none): the id that ends a sequence, reached but seldom."""

    stop_scale: float = STOP


@dataclass(frozen=True)
class Uniform:
    """Values spread evenly from `low` to `high`; `logarithm` stores the logarithm of each."""

    low: float
    high: float
    logarithm: bool = False


@dataclass(frozen=True)
class CodePrompts:
    """Codec prompts [speakers, groups, frames]: codes below `codebook` in the first `frames` of each speaker, then -1."""

    codebook: int
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """One tensor of the per-expert layout, of `dtype` where the family fixes one, else of that of the checkpoint."""

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


def head(name: str, rows: int, columns: int, faint_rows: tuple[int, ...] = (), stop_row: int = -1, stop_scale: float = STOP) -> Tensor:
    return Tensor(name, (rows, columns), Draw(HEAD_STD / math.sqrt(columns), faint_rows=faint_rows, stop_row=stop_row, stop_scale=stop_scale))


def feed_forward(prefix: str, hidden: int, width: int, branch: float) -> Iterator[Tensor]:
    yield from linear(f"{prefix}.gate_proj", width, hidden)
    yield from linear(f"{prefix}.up_proj", width, hidden)
    yield from linear(f"{prefix}.down_proj", hidden, width, gain=branch / math.sqrt(GATED_POWER))
