"""The meaning of what GatedDeltaRule's fused programs do behind it, in NumPy."""

from __future__ import annotations

import numpy as np

from .reference import EPSILON


def gated_norm(y: np.ndarray, z: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """RMSNorm of each head of y, times its weight, times SiLU of z, in the dtype of the arguments (give float64 for a reference).

    y, z [..., heads * value_dim]; weight [value_dim]. Rows of zeros stay zero. Kernels compute this in float32 from y, which in prefill has been rounded
    to its dtype, and round once at the end. Source: HF Qwen3_5MoeRMSNormGated.
    """
    heads = y.reshape(*y.shape[:-1], -1, len(weight))
    normed = heads / np.sqrt((heads * heads).mean(axis=-1, keepdims=True) + EPSILON) * weight
    with np.errstate(over="ignore"):
        return normed.reshape(y.shape) * z / (1 + np.exp(-z))
