"""Noise of sampling: the same draws on every engine and host.

The draw itself happens inside the graphs (op SampleToken); the host supplies uniform noise that
depends on the seed and on what is drawn, never on when, so that an answer can be replayed whatever the
timing of the pipeline was.
"""

from __future__ import annotations

import numpy as np

from ..bundle.numeric import whole

THINKER, TALKER, PREDICTOR = 0, 1, 2
"""Stage ids in the noise counter."""

LARGEST_SEED = 2**64 - 1

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
        c0, c1, c2, c3 = (
            (product1 >> shift) ^ c1 ^ k0,
            product1 & low,
            (product0 >> shift) ^ c3 ^ k1,
            product0 & low,
        )
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), axis=-1).astype(np.uint32)


def uniform(seed: int, stage: int, position: np.ndarray | int, codebook: np.ndarray | int = 0) -> np.ndarray:
    """Uniform float32 in [0, 1) on a grid of 2**-24, one per broadcast (position, codebook).

    The key is the 64-bit `seed` (low word first), the counter (stage, position, codebook,
    0); the first word is used.
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
    """The noise of one stage of one answer, drawn in blocks of positions.

    `codebooks` are the codebook numbers of one position.
    """

    def __init__(self, seed: int, stage: int, codebooks: range = range(1)) -> None:
        self._seed, self._stage, self._codebooks = (
            int(seed),
            stage,
            np.arange(codebooks.start, codebooks.stop),
        )
        self._first = -1
        self._rows = np.zeros((0, len(codebooks)), np.float32)

    def at(self, position: int) -> np.ndarray:
        """Float32 [codebooks] for answer position or frame `position`, counted from 0."""
        first = position - position % _BLOCK
        if first != self._first:
            self._first = first
            self._rows = uniform(
                self._seed, self._stage, np.arange(first, first + _BLOCK)[:, None], self._codebooks[None, :]
            )
        return self._rows[position - first]
