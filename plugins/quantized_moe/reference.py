"""Reference implementation of QuantizedMoE, in NumPy."""

from __future__ import annotations

import numpy as np

from ..moe.reference import moe

FP8, INT8, INT4 = 0, 1, 2
"""The values of the attribute `format`."""


def quantized_moe(
    x: np.ndarray,
    router_logits: np.ndarray,
    gate_up: np.ndarray,
    gate_up_scale: np.ndarray,
    down: np.ndarray,
    down_scale: np.ndarray,
    top_k: int,
    normalize: bool,
    format: int,
) -> np.ndarray:
    """`moe` with weights from `dequantize`, computed in the dtype of x (float64 for a reference).

    x [rows, hidden]; router_logits [rows, experts]; gate_up uint8 [experts, 2 * inter, hidden] (INT4: hidden
    / 2 bytes), gate and up rows interleaved; down uint8 [experts, hidden, inter] (INT4: inter / 2 bytes).
    Returns [rows, hidden].
    """
    first, second = (
        dequantize(bits, scale, format).astype(x.dtype)
        for bits, scale in ((gate_up, gate_up_scale), (down, down_scale))
    )
    return moe(x, router_logits, first, second, top_k, normalize)


def dequantize(bits: np.ndarray, scale: np.ndarray, format: int) -> np.ndarray:
    """Weights float64 [experts, outputs, inputs] from uint8 bits (INT4: inputs / 2 bytes) and scale.

    registry.QUANTIZED_MOE defines the shapes of scale.
    """
    numbers = decode(bits, format)
    for axis in (1, 2):
        size, scales = numbers.shape[axis], scale.shape[axis]
        places = 128 if scales == -(-size // 128) else size // scales
        scale = np.take(scale, np.arange(size) // places, axis)
    return numbers * scale


def decode(bits: np.ndarray, format: int) -> np.ndarray:
    """The numbers float64 of uint8 [..., inputs]; INT4 gives [..., 2 * bytes].

    The two NaN patterns of E4M3, which no quantiser writes, give 480.
    """
    # E4M3 is a float16 divided by 256, apart from the places of its bits.
    if format == FP8:
        wide = bits.astype(np.uint16)
        return ((wide & 0x80) << 8 | (wide & 0x7F) << 7).view(np.float16).astype(np.float64) * 256
    if format == INT8:
        return bits.view(np.int8).astype(np.float64)
    return np.stack([bits & 15, bits >> 4], axis=-1).reshape(*bits.shape[:-1], -1).astype(np.float64) - 8
