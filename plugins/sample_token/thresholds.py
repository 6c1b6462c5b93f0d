"""The lowest kept score by bisection over the float32 numbers, where the candidates do not suffice."""

import triton
import triton.language as tl


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
def threshold_small(scores, weights, is_free, largest, total, top_k, top_p):
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
def threshold_large(scores_ptr, vocab, largest, total, top_k, top_p, SCAN: tl.constexpr):
    """As `threshold_small`, but each pass over the scores tests three thresholds."""
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
            quarter, half, rest = _counts(
                scores_ptr,
                vocab,
                _score_of(lowest + step),
                _score_of(lowest + 2 * step),
                _score_of(lowest + 3 * step),
                SCAN,
            )
            passed = (
                (quarter >= top_k).to(tl.int64) + (half >= top_k).to(tl.int64) + (rest >= top_k).to(tl.int64)
            )
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
            one, two, three = _masses(
                scores_ptr,
                vocab,
                _score_of(below + stride),
                _score_of(below + 2 * stride),
                _score_of(below + 3 * stride),
                largest,
                SCAN,
            )
            outside = (
                (one >= top_p * mass).to(tl.int64)
                + (two >= top_p * mass).to(tl.int64)
                + (three >= top_p * mass).to(tl.int64)
            )
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
        counts += tl.where(scores >= first, 1, 0).to(tl.int64) + tl.where(scores >= second, 1 << 21, 0).to(
            tl.int64
        )
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
