"""Random tensor values. Each tensor has its own Philox stream, so order and layout do not change a value."""

from __future__ import annotations

import hashlib

import numpy as np

from .initializers import FAINT, CodePrompts, Draw, Tensor, Uniform


def values(tensor: Tensor, seed: int) -> np.ndarray:
    """The values of `tensor`, float32 (codec prompts: int64). They depend only on `tensor` and `seed`."""
    key = hashlib.blake2b(f"{seed}:{tensor.name}".encode(), digest_size=16).digest()
    generator = np.random.Generator(np.random.Philox(key=np.frombuffer(key, dtype=np.uint64)))
    draw = tensor.draw
    if isinstance(draw, Uniform):
        even = generator.uniform(draw.low, draw.high, tensor.shape)
        return (np.log(even) if draw.logarithm else even).astype(np.float32)
    if isinstance(draw, CodePrompts):
        codes = generator.integers(0, draw.codebook, tensor.shape)
        for speaker, frames in enumerate(draw.frames):
            codes[speaker, :, frames:] = -1
        return codes
    return _normal(tensor.shape, draw, generator)


def _normal(shape: tuple[int, ...], draw: Draw, generator: np.random.Generator) -> np.ndarray:
    array = generator.standard_normal(shape, dtype=np.float32)
    array *= np.float32(draw.std)
    array += np.float32(draw.mean)
    if draw.zero_sum and array.size > array.shape[draw.output_axis]:
        array -= array.mean(
            axis=tuple(axis for axis in range(array.ndim) if axis != draw.output_axis), keepdims=True
        )
    if draw.faint_rows:
        array[list(draw.faint_rows)] *= np.float32(FAINT)
    if draw.stop_row >= 0:
        array[draw.stop_row] *= np.float32(draw.stop_scale)
    return array


def encode(array: np.ndarray, dtype: str) -> bytes:
    """The little-endian bytes of a float32 array in `dtype`, rounded to nearest, ties to even.

    `dtype` is bfloat16, float16 or float32. An int64 array is not converted.
    """
    if dtype == "int64":
        return array.astype("<i8", copy=False).tobytes()
    if dtype == "float32":
        return array.astype("<f4", copy=False).tobytes()
    if dtype == "float16":
        return array.astype("<f2").tobytes()
    assert dtype == "bfloat16", dtype
    bits = array.view(np.uint32)
    rounded = bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))
    return (rounded >> 16).astype("<u2").tobytes()
