"""The scores of ids: logits after penalty, suppression and temperature."""

import triton
import triton.language as tl


@triton.jit
def adjusted_scores(logits, penalised, suppressed, inside, repetition_penalty, temperature):
    """Scores float32: logits after penalty, suppression and temperature; -inf outside the vocabulary.

    Divisions round correctly, so that equal logits stay equal.
    """
    logits = logits.to(tl.float32)
    penalty = tl.zeros_like(logits) + repetition_penalty
    punished = tl.where(logits > 0, tl.div_rn(logits, penalty), logits * penalty)
    allowed = tl.where(penalised, punished, logits)
    divisor = tl.zeros_like(logits) + tl.where(temperature == 0, 1.0, temperature)
    return tl.where(inside & ~suppressed, tl.div_rn(allowed, divisor), float("-inf"))
