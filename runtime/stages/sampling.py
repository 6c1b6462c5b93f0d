"""Noise and parameters of sampling: the same draws on every engine and host.

The draw itself happens inside the graphs (op SampleToken); the host supplies uniform noise that depends on the seed and on what is
drawn, never on when, so that an answer can be replayed whatever the timing of the pipeline was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..bundle.numeric import number, whole

THINKER, TALKER, PREDICTOR = 0, 1, 2
"""Stage ids in the noise counter."""

LARGEST_SEED = 2**64 - 1
TEMPERATURE = 1e-3, 1e3
"""Below, logits divided by it leave float32's range; 0 is greedy."""
TOP_P = 1e-6, 1.0
PENALTY = 1e-2, 1e2
"""Beyond, the penalty alone decides what is drawn."""

_BLOCK = 64  # positions drawn at once: one vectorised call instead of 64 small ones


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Philox4x32 with 10 rounds: four random words per counter.

    counter uint32 [..., 4] and key uint32 [..., 2], broadcast against each other -> uint32 [..., 4].
    Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), Random123.
    """
    c0, c1, c2, c3 = (counter[..., word].astype(np.uint64) for word in range(4))
    k0, k1 = (key[..., word].astype(np.uint64) for word in range(2))
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (product1 >> shift) ^ c1 ^ k0, product1 & low, (product0 >> shift) ^ c3 ^ k1, product0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniform(seed: int, stage: int, position: np.ndarray | int, codebook: np.ndarray | int = 0) -> np.ndarray:
    """Uniform float32 in [0, 1) on a grid of 2**-24, one per broadcast (position, codebook).

    The key is the 64-bit `seed` (low word first), the counter (stage, position, codebook, 0); the first word is used.
    """
    seed = check_seed(seed)
    position, codebook = np.broadcast_arrays(np.asarray(position, np.uint32), np.asarray(codebook, np.uint32))
    counter = np.stack([np.full_like(position, stage), position, codebook, np.zeros_like(position)], axis=-1)
    key = np.array([seed & 0xFFFFFFFF, seed >> 32], np.uint32)
    return (philox4x32(counter, key)[..., 0] >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def check_seed(seed: int) -> int:
    """`seed` as an int. Raises AntiphonError unless it is an integer of 64 bits without sign."""
    return whole(seed, "seed", 0, LARGEST_SEED)


class Noise:
    """The noise of one stage of one answer, drawn in blocks of positions. `codebooks` are the codebook numbers of one position."""

    def __init__(self, seed: int, stage: int, codebooks: range = range(1)) -> None:
        self._seed, self._stage, self._codebooks = int(seed), stage, np.arange(codebooks.start, codebooks.stop)
        self._first = -1
        self._rows = np.zeros((0, len(codebooks)), np.float32)

    def at(self, position: int) -> np.ndarray:
        """Float32 [codebooks] for answer position or frame `position`, counted from 0."""
        first = position - position % _BLOCK
        if first != self._first:
            self._first = first
            self._rows = uniform(self._seed, self._stage, np.arange(first, first + _BLOCK)[:, None], self._codebooks[None, :])
        return self._rows[position - first]


@dataclass(frozen=True)
class SamplingParameters:
    """How ids are drawn. `temperature` 0 is greedy, `top_k` 0 and `top_p` 1 are off; `max_tokens` None means up to the context limit.

    `min_tokens` ids come before the end is allowed. NumPy scalars become Python's. Raises AntiphonError when a value is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    min_tokens: int = 0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        values = {
            "temperature": number(self.temperature, "temperature", *TEMPERATURE, or_zero=True),
            "top_k": whole(self.top_k, "top_k", 0),
            "top_p": number(self.top_p, "top_p", *TOP_P),
            "repetition_penalty": number(self.repetition_penalty, "repetition_penalty", *PENALTY),
            "min_tokens": whole(self.min_tokens, "min_tokens", 0),
            "max_tokens": None if self.max_tokens is None else whole(self.max_tokens, "max_tokens", 1),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def greedy(self) -> SamplingParameters:
        """The same parameters without chance; penalty and limits stay, as in HF generate with do_sample=False."""
        return replace(self, temperature=0.0)

    def feeds(self, rows: int) -> dict[str, np.ndarray]:
        """The constant sampling inputs of a graph, each of shape [rows]: temperature, top_k, top_p, repetition_penalty."""
        return {
            "temperature": np.full(rows, self.temperature, np.float32),
            "top_k": np.full(rows, self.top_k, np.int64),
            "top_p": np.full(rows, self.top_p, np.float32),
            "repetition_penalty": np.full(rows, self.repetition_penalty, np.float32),
        }
