"""The kernel for a vocabulary that fits in one block's registers."""

import triton
import triton.language as tl

from .candidates import bound_rank, candidate_bound, compact, draw_candidate
from .draws import NONE, draw
from .scores import adjusted_scores
from .thresholds import threshold_small


@triton.jit
def sample_small(
    logits_ptr,
    noise_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    repetition_penalty_ptr,
    penalised_ptr,
    suppressed_ptr,
    vocab,
    token_ptr,
    scores_ptr,
    ids_ptr,
    TILE: tl.constexpr,
    GROUPS: tl.constexpr,
    CAPACITY: tl.constexpr,
):
    """One token per row whose vocabulary fits in one block's registers. Grid: rows.

    `scores` and `ids` are memory for the candidates.
    """
    row = tl.program_id(0).to(tl.int64)
    ids = tl.arange(0, TILE)
    inside = ids < vocab
    offset = row * vocab + ids
    logits = tl.load(logits_ptr + offset, mask=inside, other=0.0)
    penalised = tl.load(penalised_ptr + offset, mask=inside, other=0) != 0
    suppressed = tl.load(suppressed_ptr + offset, mask=inside, other=0) != 0
    temperature = tl.load(temperature_ptr + row)
    noise = tl.load(noise_ptr + row)
    top_p = tl.load(top_p_ptr + row)
    top_k = tl.minimum(tl.load(top_k_ptr + row), vocab).to(tl.int32)
    scores = adjusted_scores(
        logits, penalised, suppressed, inside, tl.load(repetition_penalty_ptr + row), temperature
    )
    scores_ptr += row * CAPACITY
    ids_ptr += row * CAPACITY

    token = -1
    # Any grouping is valid.
    maxima = tl.max(tl.reshape(scores, [GROUPS, TILE // GROUPS], can_reorder=True), axis=1)
    largest = tl.max(maxima, axis=0)
    if temperature == 0:
        token = tl.min(tl.where(scores == largest, ids, NONE), axis=0)
    else:
        is_free = scores > float("-inf")
        free = tl.sum(is_free.to(tl.int32), axis=0)
        top_k = tl.where(top_k < free, top_k, 0)  # a larger top_k is no limit
        total = tl.sum(tl.exp(scores - largest), axis=0)
        is_cut = (top_k > 0) | (top_p < 1)
        if is_cut:
            is_candidate = (scores >= candidate_bound(maxima, bound_rank(top_k, GROUPS))) & is_free
            count = tl.sum(is_candidate.to(tl.int32), axis=0)
            if (count >= top_k) & (count <= CAPACITY):
                compact(scores, ids, is_candidate, scores_ptr, ids_ptr, CAPACITY)
                tl.debug_barrier()
                token = draw_candidate(
                    scores_ptr, ids_ptr, count, largest, total, noise, top_k, top_p, CAPACITY
                )
        if token < 0:
            weights = tl.exp(scores - largest)
            threshold = float("-inf")
            if is_cut:
                threshold = threshold_small(scores, weights, is_free, largest, total, top_k, top_p)
            is_kept = is_free & (scores >= threshold)
            kept_weights = tl.where(is_kept, weights, 0.0)
            token = draw(kept_weights, ids, is_kept, 0.0, noise * tl.sum(kept_weights, axis=0))
    tl.store(token_ptr + row, token)
