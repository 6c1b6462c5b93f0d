"""Convert audio arrays of any dtype and layout to float32 [samples, channels]."""

from __future__ import annotations

import numpy as np

from ...bundle.errors import InvalidInput

MOST_CHANNELS = 64
"""The largest number of channels. A longer axis holds samples."""
_OFFSETS = {"int8": 0, "uint8": 128, "int16": 0, "int32": 0}
"""The value of silence for each integer dtype; uint8 is as in WAV. Full scale is that of the dtype."""
_AMBIGUOUS = 2**23
"""An int32 array with only smaller values is 24-bit audio that was not shifted up, or almost silence: the two
readings differ by 48 dB.
"""


def whole_array(samples: np.ndarray) -> np.ndarray:
    """A whole recording as [samples] or [samples, channels] in its own dtype, as a view if possible.

    Takes floats, int8, uint8 (silence at 128), int16 and int32 of any byte order and layout. Takes [channels,
    samples] too: the shorter axis is the channels. Raises AntiphonError for any other dtype or shape, for two
    axes of equal length, for masked samples, and for int32 that holds 24-bit samples.
    """
    samples = _checked(samples)
    if samples.ndim == 2:
        length, channels = samples.shape
        if length == channels > 1:
            raise InvalidInput(
                f"The audio array has the shape {[length, channels]}, of which neither axis is the longer; "
                "give [samples, channels]."
            )
        if 0 < length < channels:
            samples, channels = samples.T, length
        if channels > MOST_CHANNELS:
            raise _wrong_shape(samples)
    if samples.dtype.name == "int32" and samples.size and 0 < (peak := _peak(samples)) < _AMBIGUOUS:
        raise InvalidInput(
            f"The audio array is int32 and goes to {peak:,} only, which is 24-bit sound or almost silence; "
            "shift 24-bit sound up by 8 bits, or give floats."
        )
    return samples


def columns(samples: np.ndarray) -> np.ndarray:
    """A piece of audio, [samples] or [samples, channels], as float32 [samples, channels]; full scale becomes
    1.

    Dtypes and errors are those of `whole_array`, but nothing is guessed from a short piece: the second axis
    is always the channels, and int32 always has 32 bits.
    """
    samples = _checked(samples)
    if samples.ndim == 2 and not 1 <= samples.shape[1] <= MOST_CHANNELS:
        raise _wrong_shape(samples)
    if not samples.size:
        return np.zeros((0, 1), np.float32)
    with np.errstate(over="ignore"):  # values beyond float32 become infinite and are refused later, as NaN is
        found = samples.astype(np.float32)
    if samples.dtype.kind != "f":
        offset = _OFFSETS[samples.dtype.name]
        found = (found - np.float32(offset)) / np.float32(2 ** (8 * samples.dtype.itemsize - 1))
    return np.ascontiguousarray(found).reshape(len(found), -1)


def _checked(samples: np.ndarray) -> np.ndarray:
    """A plain array. Raises AntiphonError for a dtype or a number of axes that audio does not have."""
    if isinstance(samples, np.ma.MaskedArray):
        if np.ma.is_masked(samples):
            raise InvalidInput("The audio array has masked samples; fill them, for instance with silence.")
        samples = samples.data
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2):
        raise _wrong_shape(samples)
    if samples.dtype.kind != "f" and samples.dtype.name not in _OFFSETS:
        name = samples.dtype.name if samples.dtype.names is None else "records"
        raise InvalidInput(
            f"The audio array holds {name}; expected floats in -1 .. 1, int8, uint8, int16 or int32."
        )
    return samples


def _peak(samples: np.ndarray) -> int:
    return max(int(samples.max()), -int(samples.min()))


def _wrong_shape(samples: np.ndarray) -> InvalidInput:
    return InvalidInput(
        f"The audio array has the shape {list(samples.shape)[:8]}; "
        f"expected [samples] or [samples, channels] of up to {MOST_CHANNELS} channels."
    )
