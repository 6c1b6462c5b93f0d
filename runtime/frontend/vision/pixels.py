"""Convert pictures of any bit depth, from memory or a file, to 8 bits per channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle.errors import InvalidInput
from ...bundle.said import reason

if TYPE_CHECKING:
    from PIL.Image import Image

DEEPEST = 2**16 - 1
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # TIFF tags
_WHITE_IS_ZERO = 0
NO_TAGS: Mapping[int, Any] = {}


def array_pixels(array: np.ndarray) -> np.ndarray:
    """An image array as uint8 [height, width, 3]; transparent pixels become white.

    Takes [height, width], [height, width, 1], [height, width, 3] and [height, width, 4]. uint8 is kept,
    uint16 is divided by 257, floats in 0 .. 1 are multiplied by 255, and bool becomes black and white. Raises
    AntiphonError for any other dtype, shape or range.
    """
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise InvalidInput("The image array has masked pixels; fill them.")
        array = array.data
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0:
        raise _unfit(array)
    deep = _eight(array)
    if deep.shape[2] == 4:
        alpha = deep[:, :, 3:].astype(np.uint32)
        over = deep[:, :, :3] * alpha + 255 * (255 - alpha)
        deep = ((over + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(deep, (*deep.shape[:2], 3)))


def eight_bits(image: Image, file_format: str | None = None, tags: Mapping[int, Any] = NO_TAGS) -> Image:
    """Convert a Pillow image to 8 bits per channel: modes I;16, I and F to L or LA, premultiplied modes to
    plain ones.

    Other modes are kept. `file_format` and `tags` are those of the image's file, since a rotated copy loses
    them.

    16-bit values are divided by 257; those of a TIFF of fewer bits are scaled by its own white. Floats in 0
    .. 1 are multiplied by 255. Mode I holds 16 bits if the file is a PNG or a value exceeds 255. Raises
    AntiphonError for other ranges. Pillow's own conversion clips such pixels at 255, which makes them white
    or black.
    """
    if image.mode in ("La", "RGBa"):
        plain: Image = image.convert(image.mode.upper())
        return plain
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    pixels = np.asarray(image)
    shade = (
        _eight(pixels) if image.mode == "F" else _shade(pixels, _white(image.mode, file_format, pixels, tags))
    )
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits and fewer, but not these
        shade = 255 - shade
    from PIL.Image import fromarray

    key = image.info.get("transparency")
    if not isinstance(key, int):
        deep: Image = fromarray(shade)
        return deep
    alpha = np.where(pixels == key, 0, 255).astype(np.uint8)
    return fromarray(np.stack([shade, alpha], axis=-1))  # LA


def in_rgb(image: Image, file_format: str | None = None, tags: Mapping[int, Any] = NO_TAGS) -> Image:
    """The image as RGB; transparent pixels become white, as in the reference's convert_to_rgb.

    Arguments as for `eight_bits`. Raises AntiphonError as `eight_bits`, and for a mode that Pillow cannot
    convert.
    """
    from PIL.Image import alpha_composite, new

    image = eight_bits(image, file_format, tags)
    try:
        if "A" not in image.getbands() and image.info.get("transparency") is None:
            return image.convert("RGB")
        image = image.convert("RGBA")
    except ValueError as error:
        raise InvalidInput(
            f"An image of the mode {image.mode} cannot be turned into RGB ({reason(error)}); "
            "convert it first."
        ) from None
    composed: Image = alpha_composite(new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return composed


def _eight(array: np.ndarray) -> np.ndarray:
    """The array as uint8 of the same shape."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return _shade(array, DEEPEST)
    if array.dtype.kind != "f":
        raise _unfit(array)
    least, most = float(array.min()), float(array.max())
    if not (least >= 0 and most <= 1):  # NaN is refused, too
        raise InvalidInput(
            f"The image holds floats from {least:g} to {most:g}; expected 0 .. 1, or uint8 or uint16."
        )
    return (array.astype(np.float32) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _shade(pixels: np.ndarray, white: int) -> np.ndarray:
    """Scale integers 0 .. white to uint8, rounded."""
    return ((pixels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _white(mode: str, file_format: str | None, pixels: np.ndarray, tags: Mapping[int, Any]) -> int:
    """The value of white in an image of integers."""
    if mode != "I":
        bits = tags.get(_BITS_PER_SAMPLE, (16,)) if mode.startswith("I;16") else (16,)
        return int(2 ** min(16, max(int(bits[0]), 1)) - 1)
    least, most = int(pixels.min()), int(pixels.max())
    if least < 0 or most > DEEPEST or (most <= 255 and most > 0 and file_format != "PNG"):
        raise InvalidInput(
            f"The image holds 32-bit integers from {least} to {most}; expected 16 bits, 0 to {DEEPEST}, "
            "as uint16 or as a 16-bit PNG or TIFF."
        )
    return DEEPEST


def _unfit(array: np.ndarray) -> InvalidInput:
    name = array.dtype.name if array.dtype.names is None else "records"
    return InvalidInput(
        f"The image array is {name} {list(array.shape)[:8]}; expected uint8 [height, width, 3], "
        "grey [height, width] or with alpha [height, width, 4], or the same in uint16 or floats of 0 .. 1."
    )
