"""Images to the patches that the vision encoder takes.

Source: Qwen2VLImageProcessor (transformers 5.23), the PIL variant.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AntiphonError, missing_extra
from ..said import reason
from .media_options import AS_THE_BUNDLE, PixelOptions
from .media_source import resolve_source
from .picture_size import VisionSettings, image_sizes
from .pixels import NO_TAGS, array_pixels, in_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


def load_image(source: Any) -> Image:
    """The image in `source` as an RGB PIL image, turned upright by its EXIF orientation, on white where transparent.

    `source`: what `media_source.resolve_source` takes, a PIL image, or an array [height, width, 3] (see pixels.array_pixels). Raises AntiphonError.
    """
    pil = _pillow()
    if isinstance(source, np.ndarray):
        image: Image = pil.Image.fromarray(array_pixels(source))
        return image
    is_open = isinstance(source, pil.Image.Image)
    resolved = source if is_open else resolve_source(source, "image")
    try:
        opened: Image = source if is_open else pil.Image.open(io.BytesIO(resolved) if isinstance(resolved, bytes) else resolved)
        opened.load()
    except (OSError, ValueError, SyntaxError, pil.Image.DecompressionBombError) as error:
        raise AntiphonError(f"The image cannot be read ({reason(error)}); give a PNG, JPEG, WebP, GIF, BMP or TIFF file.") from None
    return in_rgb(pil.ImageOps.exif_transpose(opened), opened.format, getattr(opened, "tag_v2", NO_TAGS))


def read_image(source: Any, settings: VisionSettings, options: PixelOptions = AS_THE_BUNDLE) -> np.ndarray:
    """The image in `source` (see `load_image`), brought to its target size, which `options` may change: uint8 [height, width, 3]."""
    image = load_image(source)
    return resized(image, image_sizes((image.height, image.width), options, settings), settings)


def patch_grid(frames: int, shape: Sequence[int], settings: VisionSettings) -> tuple[int, int, int]:
    """(temporal patches, rows and columns of patches) of so many resized frames of `shape` (height, width, ...)."""
    return -(-frames // settings.temporal_patch_size), shape[0] // settings.patch_size, shape[1] // settings.patch_size


def resized(image: Image, sizes: Sequence[tuple[int, int]], settings: VisionSettings) -> np.ndarray:
    """The image as uint8 [height, width, 3], brought to each of the given (height, width) in turn."""
    for height, width in sizes:
        image = image.resize((width, height), _pillow().Image.Resampling(settings.resample))
    return np.asarray(image)


def frame_patches(frames: Sequence[np.ndarray], settings: VisionSettings) -> np.ndarray:
    """Resized frames uint8 [height, width, 3], normalised and cut: float32 [time, patches, patch_dim].

    patch_dim = 3 * temporal_patch_size * patch_size^2. The last frame is repeated until the temporal patches are full.
    """
    size, merge, depth = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    times, rows, columns = patch_grid(len(frames), frames[0].shape, settings)
    mean, deviation = np.array(settings.image_mean, np.float32), np.array(settings.image_std, np.float32)
    patches = np.empty((times, rows * columns, 3 * depth * size * size), np.float32)
    for time in range(times):
        group = np.stack([frames[min(time * depth + offset, len(frames) - 1)] for offset in range(depth)])
        pixels = (group.astype(np.float32) * np.float32(settings.rescale_factor) - mean) / deviation  # [depth, height, width, 3]
        blocks = pixels.reshape(depth, rows // merge, merge, size, columns // merge, merge, size, 3)
        # Patches of one merged square stand together: (row block, column block, row in it, column in it, channel, frame, y, x).
        patches[time] = blocks.transpose(1, 4, 2, 5, 7, 0, 3, 6).reshape(rows * columns, -1)
    return patches


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise missing_extra("PIL", "media", "Reading images and video") from None
    return PIL
