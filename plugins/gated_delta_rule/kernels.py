"""The kernels of GatedDeltaRule: few tokens in one launch, many in chunks, each also with the gated norm."""

from .decode import gated_norm, step, step_and_norm
from .inverse import invert_keys
from .prefill import carry_state, compare_queries

__all__ = ["carry_state", "compare_queries", "gated_norm", "invert_keys", "step", "step_and_norm"]
