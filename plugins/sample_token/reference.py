"""Reference implementation of SampleToken, in NumPy."""

from __future__ import annotations

import numpy as np


def sample_token(
    logits: np.ndarray,
    noise: np.ndarray,
    temperature: np.ndarray,
    top_k: np.ndarray,
    top_p: np.ndarray,
    repetition_penalty: np.ndarray,
    penalised: np.ndarray,
    suppressed: np.ndarray,
) -> np.ndarray:
    """One id per row, computed in the dtype of `logits` (float64 for a reference).

    logits [rows, vocab]; noise [rows] uniform in [0, 1); temperature [rows], 0 takes the largest logit, the
    first of equals; top_k int64 [rows], 0 for off; top_p [rows], 1 for off. repetition_penalty [rows] divides
    the positive and multiplies the other logits of the ids in `penalised` bool [rows, vocab]. Ids in
    `suppressed` bool [rows, vocab] are never drawn; at least one must be free. Returns int64 [rows]. Source:
    the logits processors of HF generate, in their order; then the inverse of the cumulative distribution in
    id order.
    """
    rows = [
        _sample_row(*arguments)
        for arguments in zip(
            logits, noise, temperature, top_k, top_p, repetition_penalty, penalised, suppressed, strict=True
        )
    ]
    return np.array(rows, np.int64)


def _sample_row(
    logits: np.ndarray,
    noise: float,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    penalised: np.ndarray,
    suppressed: np.ndarray,
) -> int:
    kind = logits.dtype.type
    penalty = kind(repetition_penalty)
    logits = np.where(penalised, np.where(logits > 0, logits / penalty, logits * penalty), logits)
    logits = np.where(suppressed, kind(-np.inf), logits)
    if temperature == 0:
        return int(np.argmax(logits))
    logits = logits / kind(temperature)
    largest_first = np.sort(logits)[::-1]
    largest_first = largest_first[np.isfinite(largest_first)]
    if top_k > 0:
        largest_first = largest_first[: int(top_k)]
    if top_p < 1:
        largest_first = largest_first[: _nucleus(largest_first, kind(top_p))]
    is_kept = logits >= largest_first[-1]  # ids equal to the last kept one are kept too, as in HF
    weights = np.where(is_kept, np.exp(logits - largest_first[0]), kind(0))
    cumulative = np.cumsum(weights)
    drawn = np.count_nonzero(cumulative <= kind(noise) * cumulative[-1])
    return min(int(drawn), int(np.flatnonzero(is_kept)[-1]))


def _nucleus(largest_first: np.ndarray, top_p: np.floating) -> int:
    """The number of sorted logits kept: those with less than `top_p` before them, at least one."""
    weights = np.exp(largest_first - largest_first[0])
    before = np.cumsum(weights / weights.sum())[:-1]
    return 1 + int(np.count_nonzero(before < top_p))
