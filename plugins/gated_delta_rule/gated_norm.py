"""Reference implementation of the gated norm that GatedDeltaRule's fused programs apply to y, in NumPy."""

from __future__ import annotations

import numpy as np

from .reference import EPSILON


def gated_norm(y: np.ndarray, z: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """RMSNorm of each head of y, times its weight, times SiLU of z, in the dtype of the arguments.

    y, z [..., heads * value_dim]; weight [value_dim]. Give float64 for a reference. Rows of zeros stay zero.
    The kernels compute this in float32 and round once at the end; in prefill they read y rounded to its
    dtype. Source: HF Qwen3_5MoeRMSNormGated.
    """
    heads = y.reshape(*y.shape[:-1], -1, len(weight))
    normed = heads / np.sqrt((heads * heads).mean(axis=-1, keepdims=True) + EPSILON) * weight
    with np.errstate(over="ignore"):
        return normed.reshape(y.shape) * z / (1 + np.exp(-z))
