"""The kernels of SampleToken, which do not sort the vocabulary.

Usually fewer than CAPACITY ids can be drawn. A row is split into groups: at least r ids reach the r-th
largest of the groups' maxima, and in random logits few more do. These candidates are compacted in id order
and ranked against each other: the number and the weight of the ids above each candidate decide top-k and
top-p exactly. Where this does not suffice (many ties, a large top_k, a flat nucleus), bisection over the
float32 numbers finds the thresholds. Without top-k and top-p neither is needed.

Weights are exp(score - largest) in float32, summed as trees (in the large form over blocks, then within one).
So a cumulative weight has some 20 rounding errors, 1e-6 of the total. The weight above a candidate is a sum
in order, of at most CAPACITY terms. There are no atomic operations: equal inputs give equal ids.
"""

import triton
import triton.language as tl

NONE = tl.constexpr(2147483647)
"""Stands for no id."""


@triton.jit
def _scores(logits, penalised, suppressed, inside, repetition_penalty, temperature):
    """Scores float32: logits after penalty, suppression and temperature; -inf outside the vocabulary.

    Divisions round correctly, so that equal logits stay equal.
    """
    logits = logits.to(tl.float32)
    penalty = tl.zeros_like(logits) + repetition_penalty
    punished = tl.where(logits > 0, tl.div_rn(logits, penalty), logits * penalty)
    allowed = tl.where(penalised, punished, logits)
    divisor = tl.zeros_like(logits) + tl.where(temperature == 0, 1.0, temperature)
    return tl.where(inside & ~suppressed, tl.div_rn(allowed, divisor), float("-inf"))


@triton.jit
def _key(score):
    """An int32 with the same order as the float32 `score`; its own inverse after a bitcast."""
    bits = score.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _score_of(key):
    key = key.to(tl.int32)
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def _bound(maxima, rank):
    """The largest number that at least `rank` of `maxima` reach; -inf if fewer than `rank` are finite."""
    above = tl.sum((maxima[None, :] > maxima[:, None]).to(tl.int32), axis=1)
    return tl.min(tl.where(above < rank, maxima, float("inf")), axis=0)


@triton.jit
def _rank(top_k, groups):
    """The rank of the group maximum that bounds the candidates.

    It is top_k where that is a useful bound; else the middle rank, so that the candidates hold a nucleus.
    """
    return tl.where((top_k > 0) & (top_k <= groups), top_k, (groups + 1) // 2)


@triton.jit
def _compact(scores, ids, is_candidate, scores_ptr, ids_ptr, CAPACITY: tl.constexpr):
    """Write at most CAPACITY candidates, in their order."""
    chosen = is_candidate.to(tl.int32)
    place = tl.cumsum(chosen, axis=0) - chosen
    is_written = is_candidate & (place < CAPACITY)
    tl.store(scores_ptr + place, scores, mask=is_written)
    tl.store(ids_ptr + place, ids, mask=is_written)


@triton.jit
def _draw(weights, ids, is_kept, start, target):
    """The first kept id at which `start` plus the cumulative weight exceeds `target`, else the last."""
    cumulative = start + tl.cumsum(weights, axis=0)
    first = tl.min(tl.where(is_kept & (cumulative > target), ids, NONE), axis=0)
    last = tl.max(tl.where(is_kept, ids, -1), axis=0)
    return tl.minimum(first, last)


@triton.jit
def _draw_candidate(scores_ptr, ids_ptr, count, largest, total, noise, top_k, top_p, CAPACITY: tl.constexpr):
    """The id drawn from `count` compacted candidates; -1 where they do not hold the whole nucleus.

    Every other score is lower than theirs. top_k is at most `count`, or 0; in that case `total` is the weight
    of all ids.
    """
    slot = tl.arange(0, CAPACITY)
    inside = slot < count
    score = tl.load(scores_ptr + slot, mask=inside, other=float("-inf"))
    ids = tl.load(ids_ptr + slot, mask=inside, other=0)
    weight = tl.exp(score - largest)
    above = tl.zeros([CAPACITY], tl.int32)
    mass_above = tl.zeros([CAPACITY], tl.float32)
    for place in tl.range(0, count, loop_unroll_factor=4):
        other = tl.load(scores_ptr + place)
        is_above = other > score
        above += is_above.to(tl.int32)
        mass_above += tl.where(is_above, tl.exp(other - largest), 0.0)
    is_kept = inside
    mass = total
    if top_k > 0:
        is_kept = inside & (above < top_k)
        last = tl.min(tl.where(is_kept, score, float("inf")), axis=0)
        # Of the ids equal to the last kept one, as many count as top_k leaves room for.
        more = top_k - tl.sum((score > last).to(tl.int32), axis=0)
        mass = tl.sum(tl.where(score > last, weight, 0.0), axis=0) + more * tl.exp(last - largest)
    token = -1
    if (top_k > 0) | (tl.sum(weight, axis=0) >= top_p * mass):
        limit = tl.where(top_p < 1, top_p * mass, float("inf"))
        is_kept = is_kept & ((mass_above < limit) | (score == largest))
        kept_weight = tl.where(is_kept, weight, 0.0)
        token = _draw(kept_weight, slot, is_kept, 0.0, noise * tl.sum(kept_weight, axis=0))
        token = tl.sum(tl.where(slot == token, ids, 0), axis=0)
    return token


@triton.jit
def sample_small(
    logits_ptr, noise_ptr, temperature_ptr, top_k_ptr, top_p_ptr, repetition_penalty_ptr, penalised_ptr, suppressed_ptr, vocab,
    token_ptr, scores_ptr, ids_ptr,
    TILE: tl.constexpr, GROUPS: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
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
    scores = _scores(logits, penalised, suppressed, inside, tl.load(repetition_penalty_ptr + row), temperature)
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
            is_candidate = (scores >= _bound(maxima, _rank(top_k, GROUPS))) & is_free
            count = tl.sum(is_candidate.to(tl.int32), axis=0)
            if (count >= top_k) & (count <= CAPACITY):
                _compact(scores, ids, is_candidate, scores_ptr, ids_ptr, CAPACITY)
                tl.debug_barrier()
                token = _draw_candidate(scores_ptr, ids_ptr, count, largest, total, noise, top_k, top_p, CAPACITY)
        if token < 0:
            weights = tl.exp(scores - largest)
            threshold = float("-inf")
            if is_cut:
                threshold = _threshold_small(scores, weights, is_free, largest, total, top_k, top_p)
            is_kept = is_free & (scores >= threshold)
            kept_weights = tl.where(is_kept, weights, 0.0)
            token = _draw(kept_weights, ids, is_kept, 0.0, noise * tl.sum(kept_weights, axis=0))
    tl.store(token_ptr + row, token)


@triton.jit
def _threshold_small(scores, weights, is_free, largest, total, top_k, top_p):
    """The lowest kept score, by bisection between the lowest score and the number above the largest."""
    lowest = _key(tl.min(tl.where(is_free, scores, float("inf")), axis=0)).to(tl.int64)
    mass = total
    if top_k > 0:
        beyond = _key(largest).to(tl.int64) + 1  # at least top_k ids reach `lowest`, fewer reach `beyond`
        while beyond - lowest > 1:
            middle = (lowest + beyond) >> 1
            enough = tl.sum((scores >= _score_of(middle)).to(tl.int32), axis=0) >= top_k
            lowest = tl.where(enough, middle, lowest)
            beyond = tl.where(enough, beyond, middle)
        last = _score_of(lowest)
        more = top_k - tl.sum((scores > last).to(tl.int32), axis=0)
        mass = tl.sum(tl.where(scores > last, weights, 0.0), axis=0) + more * tl.exp(last - largest)
    if top_p < 1:
        # The weight above `kept` is less than the nucleus, the weight above `below` is not; the largest score
        # is always kept.
        below = lowest - 1
        kept = _key(largest).to(tl.int64)
        while kept - below > 1:
            centre = (below + kept) >> 1
            is_in = tl.sum(tl.where(scores > _score_of(centre), weights, 0.0), axis=0) < top_p * mass
            kept = tl.where(is_in, centre, kept)
            below = tl.where(is_in, below, centre)
        lowest = kept
    return _score_of(lowest)


@triton.jit
def sample_large_scores(
    logits_ptr, temperature_ptr, repetition_penalty_ptr, penalised_ptr, suppressed_ptr, vocab, blocks,
    scores_ptr, maxima_ptr, sums_ptr,
    BLOCK: tl.constexpr,
):  # fmt: skip
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
    scores = _scores(logits, penalised, suppressed, inside, tl.load(repetition_penalty_ptr + row), tl.load(temperature_ptr + row))
    tl.store(scores_ptr + offset, scores, mask=inside)
    maxima = tl.max(tl.reshape(scores, [2, BLOCK // 2], can_reorder=True), axis=1)
    largest = tl.max(maxima, axis=0)
    weights = tl.where(scores > float("-inf"), tl.exp(scores - largest), 0.0)
    tl.store(maxima_ptr + (row * blocks + block) * 2 + tl.arange(0, 2), maxima)
    tl.store(sums_ptr + row * blocks + block, tl.sum(weights, axis=0))


@triton.jit
def sample_large_candidates(
    top_k_ptr, scores_ptr, maxima_ptr, vocab, blocks,
    counts_ptr, candidate_scores_ptr, candidate_ids_ptr,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
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
    # Compare all pairs as `_bound` does, in tiles that fit the registers.
    for start in tl.static_range(0, 2 * BLOCKS, 32):
        others = start + tl.arange(0, 32)
        other = tl.load(maxima_ptr + others, mask=others < 2 * blocks, other=float("-inf"))
        above += tl.sum((other[None, :] > maxima[:, None]).to(tl.int32), axis=1)
    top_k = tl.minimum(tl.load(top_k_ptr + row), vocab).to(tl.int32)
    bound = tl.min(tl.where(above < _rank(top_k, 2 * blocks), maxima, float("inf")), axis=0)
    is_candidate = (scores >= bound) & (scores > float("-inf"))
    place = row * blocks + block
    tl.store(counts_ptr + place, tl.sum(is_candidate.to(tl.int32), axis=0))
    _compact(scores, ids, is_candidate, candidate_scores_ptr + place * CAPACITY, candidate_ids_ptr + place * CAPACITY, CAPACITY)


@triton.jit
def _threshold_large(scores_ptr, vocab, largest, total, top_k, top_p, SCAN: tl.constexpr):
    """As `_threshold_small`, but each pass over the scores tests three thresholds."""
    least = tl.zeros([SCAN], tl.float32) + float("inf")
    found = tl.zeros([SCAN], tl.int32)
    for start in range(0, vocab, SCAN):
        ids = start + tl.arange(0, SCAN)
        scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
        is_free = scores > float("-inf")
        least = tl.where(is_free, tl.minimum(least, scores), least)
        found += is_free.to(tl.int32)
    lowest = _key(tl.min(least, axis=0)).to(tl.int64)
    highest = _key(largest).to(tl.int64)
    mass = total
    if (top_k > 0) & (top_k < tl.sum(found, axis=0)):
        beyond = highest + 1
        while beyond - lowest > 1:
            step = (beyond - lowest + 3) // 4
            quarter, half, rest = _counts(scores_ptr, vocab, _score_of(lowest + step), _score_of(lowest + 2 * step), _score_of(lowest + 3 * step), SCAN)
            passed = (quarter >= top_k).to(tl.int64) + (half >= top_k).to(tl.int64) + (rest >= top_k).to(tl.int64)
            lowest += passed * step
            beyond = tl.minimum(lowest + step, beyond)
        last = _score_of(lowest)
        above, mass_above = _above(scores_ptr, vocab, last, largest, SCAN)
        mass = mass_above + (top_k - above) * tl.exp(last - largest)
    if top_p < 1:
        below = lowest - 1
        kept = highest
        while kept - below > 1:
            stride = (kept - below + 3) // 4
            one, two, three = _masses(scores_ptr, vocab, _score_of(below + stride), _score_of(below + 2 * stride), _score_of(below + 3 * stride), largest, SCAN)
            outside = (one >= top_p * mass).to(tl.int64) + (two >= top_p * mass).to(tl.int64) + (three >= top_p * mass).to(tl.int64)
            below += outside * stride
            kept = tl.minimum(below + stride, kept)
        lowest = kept
    return _score_of(lowest)


@triton.jit
def _counts(scores_ptr, vocab, first, second, third, SCAN: tl.constexpr):
    """The number of scores that reach each of three thresholds."""
    counts = tl.zeros([SCAN], tl.int64)  # three counters of 21 bits
    for start in range(0, vocab, SCAN):
        ids = start + tl.arange(0, SCAN)
        scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
        counts += tl.where(scores >= first, 1, 0).to(tl.int64) + tl.where(scores >= second, 1 << 21, 0).to(tl.int64)
        counts += tl.where(scores >= third, 1, 0).to(tl.int64) << 42
    packed = tl.sum(counts, axis=0)
    return packed & 0x1FFFFF, (packed >> 21) & 0x1FFFFF, packed >> 42


@triton.jit
def _masses(scores_ptr, vocab, first, second, third, largest, SCAN: tl.constexpr):
    """The weight above each of three thresholds."""
    one = tl.zeros([SCAN], tl.float32)
    two = tl.zeros([SCAN], tl.float32)
    three = tl.zeros([SCAN], tl.float32)
    for start in range(0, vocab, SCAN):
        ids = start + tl.arange(0, SCAN)
        scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
        weights = tl.exp(scores - largest)
        one += tl.where(scores > first, weights, 0.0)
        two += tl.where(scores > second, weights, 0.0)
        three += tl.where(scores > third, weights, 0.0)
    return tl.sum(one, axis=0), tl.sum(two, axis=0), tl.sum(three, axis=0)


@triton.jit
def _above(scores_ptr, vocab, threshold, largest, SCAN: tl.constexpr):
    """The number and the weight of the scores above the threshold."""
    count = tl.zeros([SCAN], tl.int32)
    mass = tl.zeros([SCAN], tl.float32)
    for start in range(0, vocab, SCAN):
        ids = start + tl.arange(0, SCAN)
        scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
        count += (scores > threshold).to(tl.int32)
        mass += tl.where(scores > threshold, tl.exp(scores - largest), 0.0)
    return tl.sum(count, axis=0), tl.sum(mass, axis=0)


@triton.jit
def sample_large_draw(
    noise_ptr, temperature_ptr, top_k_ptr, top_p_ptr, scores_ptr, maxima_ptr, sums_ptr, counts_ptr, candidate_scores_ptr, candidate_ids_ptr, vocab, blocks,
    token_ptr, drawn_scores_ptr, drawn_ids_ptr,
    BLOCK: tl.constexpr, BLOCKS: tl.constexpr, CAPACITY: tl.constexpr, SCAN: tl.constexpr,
):  # fmt: skip
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
        token = _draw_candidate(drawn_scores_ptr, drawn_ids_ptr, count, largest, tl.sum(sums, axis=0), noise, top_k, top_p, CAPACITY)
    if token < 0:
        threshold = float("-inf")
        has_kept = maxima > float("-inf")
        if is_cut:
            threshold = _threshold_large(scores_ptr, vocab, largest, tl.sum(sums, axis=0), top_k, top_p, SCAN)
            has_kept = has_kept & (maxima >= threshold)
            tl.debug_barrier()  # the fast path's reads end before its memory is overwritten
            for start in range(0, vocab, SCAN):
                ids = start + tl.arange(0, SCAN)
                scores = tl.load(scores_ptr + ids, mask=ids < vocab, other=float("-inf"))
                kept = tl.reshape(tl.where(scores >= threshold, tl.exp(scores - largest), 0.0), [SCAN // BLOCK, BLOCK])
                place = start // BLOCK + tl.arange(0, SCAN // BLOCK)
                tl.store(drawn_scores_ptr + place, tl.sum(kept, axis=1), mask=place < blocks)
            tl.debug_barrier()
            sums = tl.load(drawn_scores_ptr + block, mask=inside, other=0.0)
        target = noise * tl.sum(sums, axis=0)
        home_block = _draw(sums, block, has_kept, 0.0, target)
        start = tl.sum(tl.where(block < home_block, sums, 0.0), axis=0)
        home_ids = home_block * BLOCK + tl.arange(0, BLOCK)
        home_scores = tl.load(scores_ptr + home_ids, mask=home_ids < vocab, other=float("-inf"))
        is_kept = (home_scores >= threshold) & (home_scores > float("-inf"))
        token = _draw(tl.where(is_kept, tl.exp(home_scores - largest), 0.0), home_ids, is_kept, start, target)
    tl.store(token_ptr + row, token)
