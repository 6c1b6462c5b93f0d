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

from .large import sample_large_candidates, sample_large_draw, sample_large_scores
from .small import sample_small

__all__ = ["sample_large_candidates", "sample_large_draw", "sample_large_scores", "sample_small"]
