"""The kernels for a vocabulary of many blocks: their scores, their candidates, and the draw."""

import triton
import triton.language as tl

from .candidates import bound_rank, compact, draw_candidate
from .draws import NONE, draw
from .scores import adjusted_scores
from .thresholds import threshold_large


@triton.jit
def sample_large_scores(
    logits_ptr,
    temperature_ptr,
    repetition_penalty_ptr,
    penalised_ptr,
    suppressed_ptr,
    vocab,
    blocks,
    scores_ptr,
    maxima_ptr,
    sums_ptr,
    BLOCK: tl.constexpr,
):
    """Scores of BLOCK ids, the maxima of the block's two groups, and the sum of exp(score - block maximum).

    Grid: blocks, rows.
    """
    block = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < vocab
    offset = row * vocab + ids
    logits = tl.load(logits_ptr + offset, mask=inside, other=0.0)
    penalised = tl.load(penalised_ptr + offset, mask=inside, other=0) != 0
    suppressed = tl.load(suppressed_ptr + offset, mask=inside, other=0) != 0
    scores = adjusted_scores(
        logits,
        penalised,
        suppressed,
        inside,
        tl.load(repetition_penalty_ptr + row),
        tl.load(temperature_ptr + row),
    )
    tl.store(scores_ptr + offset, scores, mask=inside)
    maxima = tl.max(tl.reshape(scores, [2, BLOCK // 2], can_reorder=True), axis=1)
    largest = tl.max(maxima, axis=0)
    weights = tl.where(scores > float("-inf"), tl.exp(scores - largest), 0.0)
    tl.store(maxima_ptr + (row * blocks + block) * 2 + tl.arange(0, 2), maxima)
    tl.store(sums_ptr + row * blocks + block, tl.sum(weights, axis=0))


@triton.jit
def sample_large_candidates(
    top_k_ptr,
    scores_ptr,
    maxima_ptr,
    vocab,
    blocks,
    counts_ptr,
    candidate_scores_ptr,
    candidate_ids_ptr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    CAPACITY: tl.constexpr,
):
    """The number of candidates among BLOCK ids, and the first CAPACITY of them. Grid: blocks, rows.

    Each block computes the bound itself.
    """
    block = tl.program_id(0)
    row = tl.program_id(1).to(tl.int64)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    scores = tl.load(scores_ptr + row * vocab + ids, mask=ids < vocab, other=float("-inf"))
    group = tl.arange(0, 2 * BLOCKS)
    maxima_ptr += row * blocks * 2
    maxima = tl.load(maxima_ptr + group, mask=group < 2 * blocks, other=float("-inf"))
    above = tl.zeros([2 * BLOCKS], tl.int32)
    # Compare all pairs as `candidate_bound` does, in tiles that fit the registers.
    for start in tl.static_range(0, 2 * BLOCKS, 32):
        others = start + tl.arange(0, 32)
        other = tl.load(maxima_ptr + others, mask=others < 2 * blocks, other=float("-inf"))
        above += tl.sum((other[None, :] > maxima[:, None]).to(tl.int32), axis=1)
    top_k = tl.minimum(tl.load(top_k_ptr + row), vocab).to(tl.int32)
    bound = tl.min(tl.where(above < bound_rank(top_k, 2 * blocks), maxima, float("inf")), axis=0)
    is_candidate = (scores >= bound) & (scores > float("-inf"))
    place = row * blocks + block
    tl.store(counts_ptr + place, tl.sum(is_candidate.to(tl.int32), axis=0))
    compact(
        scores,
        ids,
        is_candidate,
        candidate_scores_ptr + place * CAPACITY,
        candidate_ids_ptr + place * CAPACITY,
        CAPACITY,
    )


@triton.jit
def sample_large_draw(
    noise_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    scores_ptr,
    maxima_ptr,
    sums_ptr,
    counts_ptr,
    candidate_scores_ptr,
    candidate_ids_ptr,
    vocab,
    blocks,
    token_ptr,
    drawn_scores_ptr,
    drawn_ids_ptr,
    BLOCK: tl.constexpr,
    BLOCKS: tl.constexpr,
    CAPACITY: tl.constexpr,
    SCAN: tl.constexpr,
):
    """One token per row, from the candidates of all blocks or, where they do not suffice, from all scores.

    Grid: rows.

    The slow path reads the scores up to 32 times, SCAN at a time, on one SM. Only a top_k in the hundreds or
    a flat nucleus needs it.
    """
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row)
    noise = tl.load(noise_ptr + row)
    top_p = tl.load(top_p_ptr + row)
    top_k = tl.minimum(tl.load(top_k_ptr + row), vocab).to(tl.int32)
    block = tl.arange(0, BLOCKS)
    inside = block < blocks
    first = tl.load(maxima_ptr + (row * blocks + block) * 2, mask=inside, other=float("-inf"))
    second = tl.load(maxima_ptr + (row * blocks + block) * 2 + 1, mask=inside, other=float("-inf"))
    maxima = tl.maximum(first, second)
    counts = tl.load(counts_ptr + row * blocks + block, mask=inside, other=0)
    sums = tl.load(sums_ptr + row * blocks + block, mask=inside, other=0.0)
    largest = tl.max(maxima, axis=0)
    sums = sums * tl.exp(maxima - largest)
    scores_ptr += row * vocab
    drawn_scores_ptr += row * CAPACITY
    drawn_ids_ptr += row * CAPACITY
    count = tl.sum(counts, axis=0)
    is_cut = (top_k > 0) | (top_p < 1)

    token = -1
    if temperature == 0:
        chosen = tl.min(tl.where(maxima == largest, block, BLOCKS), axis=0)
        ids = chosen * BLOCK + tl.arange(0, BLOCK)
        scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
        token = tl.min(tl.where(scores == largest, ids, NONE), axis=0)
    elif is_cut & (count >= top_k) & (count <= CAPACITY):
        source = (row * blocks + block) * CAPACITY
        place = tl.cumsum(counts, axis=0) - counts
        most = tl.max(counts, axis=0)
        for start in range(0, most, 8):  # one or two passes, unless the likely ids are neighbours
            each = start + tl.arange(0, 8)[None, :]
            is_there = each < counts[:, None]  # [BLOCKS, 8]
            gathered = tl.load(candidate_scores_ptr + source[:, None] + each, mask=is_there, other=0.0)
            gathered_ids = tl.load(candidate_ids_ptr + source[:, None] + each, mask=is_there, other=0)
            tl.store(drawn_scores_ptr + place[:, None] + each, gathered, mask=is_there)
            tl.store(drawn_ids_ptr + place[:, None] + each, gathered_ids, mask=is_there)
        tl.debug_barrier()
        token = draw_candidate(
            drawn_scores_ptr,
            drawn_ids_ptr,
            count,
            largest,
            tl.sum(sums, axis=0),
            noise,
            top_k,
            top_p,
            CAPACITY,
        )
    if token < 0:
        threshold = float("-inf")
        has_kept = maxima > float("-inf")
        if is_cut:
            threshold = threshold_large(scores_ptr, vocab, largest, tl.sum(sums, axis=0), top_k, top_p, SCAN)
            has_kept = has_kept & (maxima >= threshold)
            tl.debug_barrier()  # the fast path's reads end before its memory is overwritten
            for start in range(0, vocab, SCAN):
                ids = start + tl.arange(0, SCAN)
                scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
                kept = tl.reshape(
                    tl.where(scores >= threshold, tl.exp(scores - largest), 0.0), [SCAN // BLOCK, BLOCK]
                )
                place = start // BLOCK + tl.arange(0, SCAN // BLOCK)
                tl.store(drawn_scores_ptr + place, tl.sum(kept, axis=1), mask=place < blocks)
            tl.debug_barrier()
            sums = tl.load(drawn_scores_ptr + block, mask=inside, other=0.0)
        target = noise * tl.sum(sums, axis=0)
        home_block = draw(sums, block, has_kept, 0.0, target)
        start = tl.sum(tl.where(block < home_block, sums, 0.0), axis=0)
        home_ids = home_block * BLOCK + tl.arange(0, BLOCK)
        home_scores = tl.load(scores_ptr + home_ids, mask=home_ids < vocab, other=float("-inf"))
        is_kept = (home_scores >= threshold) & (home_scores > float("-inf"))
        token = draw(tl.where(is_kept, tl.exp(home_scores - largest), 0.0), home_ids, is_kept, start, target)
    tl.store(token_ptr + row, token)
