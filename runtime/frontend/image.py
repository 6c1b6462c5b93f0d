"""Images to the patches that the vision encoder takes.

Source: Qwen2VLImageProcessor (transformers 5.23), the PIL variant.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AntiphonError, missing_extra
from .image_header import MOST_FRAMES, read_header
from .media_file import open_media
from .media_formats import WANTED, Format, require_format
from .media_policy import LOCAL, MediaPolicy
from .media_source import resolve_source

if TYPE_CHECKING:
    from PIL.Image import Image

WIDEST_RATIO = 200


@dataclass(frozen=True)
class VisionSettings:
    """Constants of image or video preprocessing; sizes in pixels, `min_pixels` and `max_pixels` per frame (height times width)."""

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


def load_image(source: Any, policy: MediaPolicy = LOCAL) -> Image:
    """The image in `source` as an RGB PIL image, turned upright by its EXIF orientation, on white where transparent.

    `source`: what `media_source.resolve_source` takes, a PIL image, or a uint8 array [height, width, 3]. Raises AntiphonError.
    """
    pil = _pillow()
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or source.size == 0:
            raise AntiphonError(f"The image array is {source.dtype} {list(source.shape)}; expected uint8 [height, width, 3].")
        policy.check_pixels(source.shape[1], source.shape[0], "The image")
        image: Image = pil.Image.fromarray(np.ascontiguousarray(source))
        return image
    if isinstance(source, pil.Image.Image):
        policy.check_pixels(source.size[0], source.size[1], "The image")
    else:
        source = _decoded(resolve_source(source, "image", policy), policy)
    return _on_white(pil.ImageOps.exif_transpose(source))


def image_size(source: Any, policy: MediaPolicy = LOCAL) -> tuple[int, int]:
    """(width, height) of what `load_image` takes, by its header alone, before it is turned upright. Raises AntiphonError for what is no image."""
    if isinstance(source, np.ndarray):
        return (source.shape[1], source.shape[0]) if source.ndim == 3 else (1, 1)
    if isinstance(source, _pillow().Image.Image):
        return int(source.size[0]), int(source.size[1])
    resolved = resolve_source(source, "image", policy)
    return _checked_size(resolved, require_format(resolved, "image", _label(resolved)), policy)


def _decoded(source: Path | bytes, policy: MediaPolicy) -> Image:
    """The image in a file, decoded by the one plugin of Pillow that is for its format."""
    pil = _pillow()
    found = require_format(source, "image", _label(source))
    _checked_size(source, found, policy)
    with open_media(source) as stream:
        try:
            # Not PIL.Image.open, which warns on the terminal of pictures that the policy allows.
            image: Image = _plugin(found.pillow)(stream, "")
            policy.check_pixels(*image.size, "The image")
            image.load()
        except BROKEN_IMAGE as error:
            raise AntiphonError(f"{_label(source)} cannot be read ({str(error)[:120]}); give a {WANTED['image']} file.") from None
        except pil.Image.DecompressionBombError:
            raise AntiphonError(f"The image has too many pixels; give one of at most {policy.max_pixels:,}.") from None
    return image


def _checked_size(source: Path | bytes, found: Format, policy: MediaPolicy) -> tuple[int, int]:
    """(width, height) of an image file. Raises AntiphonError where the header is broken, or claims what `policy` forbids."""
    header = read_header(source, found)
    if header is None:
        raise AntiphonError(f"{_label(source)} cannot be read (its {found.name} header is broken); give a {WANTED['image']} file.")
    policy.check_pixels(header.width, header.height, "The image")
    policy.check_pixels(*header.tile, "A tile of the image")
    if header.frames > MOST_FRAMES:
        raise AntiphonError(f"The image is an animation of more than {MOST_FRAMES:,} frames; give one picture of it.")
    return header.width, header.height


def _label(source: Path | bytes) -> str:
    return "The image" if isinstance(source, bytes) else f"The image {source}"


BROKEN_IMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error)
"""What Pillow's plugins raise for broken files."""


PLUGINS = {"PNG": "Png", "JPEG": "Jpeg", "GIF": "Gif", "BMP": "Bmp", "WEBP": "WebP", "TIFF": "Tiff"}


def _plugin(name: str) -> Any:
    """What opens files of one format; a plugin registers itself when it is imported."""
    import_module(f"PIL.{PLUGINS[name]}ImagePlugin")
    return _pillow().Image.OPEN[name][0]


def _on_white(image: Image) -> Image:
    """The image as RGB; what is transparent shows white, as in the reference's convert_to_rgb."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    image = image.convert("RGBA")
    pil = _pillow()
    composed: Image = pil.Image.alpha_composite(pil.Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    return composed


def read_image(source: Any, settings: VisionSettings, policy: MediaPolicy = LOCAL) -> np.ndarray:
    """The image in `source` (see `load_image`), brought to its target size: uint8 [height, width, 3]."""
    image = load_image(source, policy)
    return resized(image, target_size(image, settings), settings)


def patch_grid(frames: int, shape: Sequence[int], settings: VisionSettings) -> tuple[int, int, int]:
    """(temporal patches, rows and columns of patches) of so many resized frames of `shape` (height, width, ...)."""
    return -(-frames // settings.temporal_patch_size), shape[0] // settings.patch_size, shape[1] // settings.patch_size


def target_size(image: Image, settings: VisionSettings) -> tuple[int, int]:
    """The (height, width) that an image is brought to before it is cut into patches."""
    width, height = image.size
    return smart_resize(height, width, settings.patch_size * settings.merge_size, settings.min_pixels, settings.max_pixels)


def resized(image: Image, size: tuple[int, int], settings: VisionSettings) -> np.ndarray:
    """The image as uint8 [height, width, 3] of the given (height, width)."""
    return np.asarray(image.resize((size[1], size[0]), _pillow().Image.Resampling(settings.resample)))


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


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """The nearest (height, width) in multiples of `factor` whose area lies within the limits and keeps the proportions.

    Raises AntiphonError for images more than 200 times as long as they are wide.
    """
    if max(height, width) > WIDEST_RATIO * min(height, width):
        raise AntiphonError(f"The image is {width} x {height} pixels; expected sides of a ratio below {WIDEST_RATIO}: crop it.")
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        return max(factor, math.floor(height / shrink / factor) * factor), max(factor, math.floor(width / shrink / factor) * factor)
    if new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(height * grow / factor) * factor, math.ceil(width * grow / factor) * factor
    return new_height, new_width


def merged_tokens(width: int, height: int, settings: VisionSettings) -> int:
    """Tokens of one temporal patch of a picture of that size."""
    factor = settings.patch_size * settings.merge_size
    rows, columns = smart_resize(height, width, factor, settings.min_pixels, settings.max_pixels)
    return rows * columns // factor**2


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise missing_extra("PIL", "media", "Reading images and video") from None
    return PIL
