"""GatedDeltaRule on a GPU: few tokens in one launch, many in chunks, either with the gated norm behind it."""

from .decode import gated_norm, step, step_and_norm
from .inverse import invert_keys
from .prefill import carry_state, compare_queries

__all__ = ["carry_state", "compare_queries", "gated_norm", "invert_keys", "step", "step_and_norm"]
