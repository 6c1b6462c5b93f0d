"""The few ids that can usually be drawn: their bound, their compaction and the draw among them."""

import triton
import triton.language as tl

from .draws import draw


@triton.jit
def candidate_bound(maxima, rank):
    """The largest number that at least `rank` of `maxima` reach; -inf if fewer than `rank` are finite."""
    above = tl.sum((maxima[None, :] > maxima[:, None]).to(tl.int32), axis=1)
    return tl.min(tl.where(above < rank, maxima, float("inf")), axis=0)


@triton.jit
def bound_rank(top_k, groups):
    """The rank of the group maximum that bounds the candidates.

    It is top_k where that is a useful bound; else the middle rank, so that the candidates hold a nucleus.
    """
    return tl.where((top_k > 0) & (top_k <= groups), top_k, (groups + 1) // 2)


@triton.jit
def compact(scores, ids, is_candidate, scores_ptr, ids_ptr, CAPACITY: tl.constexpr):
    """Write at most CAPACITY candidates, in their order."""
    chosen = is_candidate.to(tl.int32)
    place = tl.cumsum(chosen, axis=0) - chosen
    is_written = is_candidate & (place < CAPACITY)
    tl.store(scores_ptr + place, scores, mask=is_written)
    tl.store(ids_ptr + place, ids, mask=is_written)


@triton.jit
def draw_candidate(scores_ptr, ids_ptr, count, largest, total, noise, top_k, top_p, CAPACITY: tl.constexpr):
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
        token = draw(kept_weight, slot, is_kept, 0.0, noise * tl.sum(kept_weight, axis=0))
        token = tl.sum(tl.where(slot == token, ids, 0), axis=0)
    return token
