"""Target sizes of pictures before they are cut into patches.

Source: Qwen2VLImageProcessor and Qwen2VLVideoProcessor (transformers 5.23). If a part has options of size,
fetch_image and fetch_video of qwen-omni-utils 0.0.9 (vision_process.py) come first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...bundle.errors import InvalidInput
from ..media.media_options import AS_THE_BUNDLE, PixelOptions

WIDEST_RATIO = 200
IMAGE_TOKENS = 4, 16384
"""The fewest and the most tokens of an image. Its limits in pixels are these times the square of the
factor.
"""
FRAME_TOKENS = 128, 768
"""The fewest and the most tokens of a frame of a video."""
CONTEXT = 128_000
"""Tokens of the reference's context (MODEL_SEQ_LEN); 90 % of it is the default of total_pixels."""


@dataclass(frozen=True)
class VisionSettings:
    """Constants of image or video preprocessing. Sizes are in pixels; `min_pixels` and `max_pixels` are
    height times width of one frame.
    """

    patch_size: int
    temporal_patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    rescale_factor: float = 1 / 255
    resample: int = 3
    """Pillow's filter number; 3 is bicubic."""


def image_sizes(
    size: tuple[int, int], options: PixelOptions, settings: VisionSettings
) -> list[tuple[int, int]]:
    """The sizes (height, width) to which an image of `size` is resized in turn: that of the options, then
    that of the bundle's limits.
    """
    if options == AS_THE_BUNDLE:
        return _within(size, [], settings)
    least, most = (tokens * _factor(settings) ** 2 for tokens in IMAGE_TOKENS)
    least = least if options.min_pixels is None else options.min_pixels
    return _asked(size, options, least, most if options.max_pixels is None else options.max_pixels, settings)


def video_sizes(
    size: tuple[int, int], frames: int, options: PixelOptions, settings: VisionSettings
) -> list[tuple[int, int]]:
    """The same as `image_sizes`, for each of `frames` frames of a video."""
    if options == AS_THE_BUNDLE:
        return _within(size, [], settings)
    square = _factor(settings) ** 2
    least = FRAME_TOKENS[0] * square if options.min_pixels is None else options.min_pixels
    total = CONTEXT * square * 0.9 if options.total_pixels is None else options.total_pixels
    most = max(min(FRAME_TOKENS[1] * square, total / frames * 2), int(least * 1.05))
    return _asked(
        size, options, least, most if options.max_pixels is None else min(options.max_pixels, most), settings
    )


def merged_tokens(size: tuple[int, int], settings: VisionSettings) -> int:
    """Tokens of one temporal patch of pictures of the resized `size` (height, width)."""
    return size[0] * size[1] // _factor(settings) ** 2


def fewest_tokens(settings: VisionSettings) -> int:
    """The fewest tokens of a temporal patch, for any options of a part, since the bundle's limits are applied
    last.
    """
    return max(1, settings.min_pixels // _factor(settings) ** 2)


def smart_resize(
    height: int, width: int, factor: int, min_pixels: float, max_pixels: float, smallest: int = 0
) -> tuple[int, int]:
    """The nearest (height, width) in multiples of `factor` whose area is within the limits and that keeps the
    proportions.

    `smallest`: lower limit of a rounded side before the limits of area are applied (0 in transformers, the
    factor in qwen-omni-utils). Raises AntiphonError if one side is more than 200 times as long as the other.
    """
    if max(height, width) > WIDEST_RATIO * min(height, width):
        raise InvalidInput(
            f"The image is {width} x {height} pixels; "
            f"expected sides of a ratio below {WIDEST_RATIO}: crop it."
        )
    new_height, new_width = (
        max(smallest, round(height / factor) * factor),
        max(smallest, round(width / factor) * factor),
    )
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return max(factor, math.floor(height / shrink / factor) * factor), max(
            factor, math.floor(width / shrink / factor) * factor
        )
    if new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return new_height, new_width


def _asked(
    size: tuple[int, int], options: PixelOptions, least: float, most: float, settings: VisionSettings
) -> list[tuple[int, int]]:
    factor = _factor(settings)
    if options.resized_height is not None and options.resized_width is not None:
        size = options.resized_height, options.resized_width
        least, most = (tokens * factor**2 for tokens in IMAGE_TOKENS)
    largest = IMAGE_TOKENS[1] * factor**2
    if least > largest:
        raise InvalidInput(
            f"min_pixels is {least:,g}, expected at most {largest:,}: {IMAGE_TOKENS[1]:,} tokens, "
            "the most of a picture."
        )
    if least > most:
        raise InvalidInput(
            f"min_pixels is {least:g}, expected at most max_pixels, which is {most:g} here; give both."
        )
    first = smart_resize(*size, factor, least, most, smallest=factor)
    return _within(first, [first], settings)


def _within(
    size: tuple[int, int], sizes: list[tuple[int, int]], settings: VisionSettings
) -> list[tuple[int, int]]:
    """`sizes`, and the size that the bundle's processor makes of `size` if its limits change it."""
    last = smart_resize(*size, _factor(settings), settings.min_pixels, settings.max_pixels)
    return sizes if sizes and last == sizes[-1] else [*sizes, last]


def _factor(settings: VisionSettings) -> int:
    return settings.patch_size * settings.merge_size
