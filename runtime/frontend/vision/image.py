"""Convert images to the patches that the vision encoder takes.

Source: Qwen2VLImageProcessor (transformers 5.23), the PIL variant.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...bundle.errors import InvalidInput, require_extra
from ...bundle.said import reason, short_path
from ..media.media_file import open_media
from ..media.media_formats import WANTED, Format, require_format
from ..media.media_options import AS_THE_BUNDLE, PixelOptions
from ..media.media_policy import LOCAL, MediaPolicy
from ..media.media_source import resolve_source
from .image_header import MOST_FRAMES, read_header
from .picture_size import VisionSettings, image_sizes
from .pixels import NO_TAGS, array_pixels, in_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


def load_image(source: Any, policy: MediaPolicy = LOCAL) -> Image:
    """The image in `source` as an RGB PIL image, upright by its EXIF orientation; transparent pixels become
    white.

    `source`: anything that `media_source.resolve_source` takes, a PIL image, or an array [height, width, 3]
    (see pixels.array_pixels). Raises AntiphonError if it is not an image or `policy` forbids it.
    """
    pil = _pillow()
    if isinstance(source, np.ndarray):
        if source.ndim in (2, 3) and source.size:
            policy.check_pixels(source.shape[1], source.shape[0], "The image")
        image: Image = pil.Image.fromarray(array_pixels(source))
        return image
    if isinstance(source, pil.Image.Image):
        policy.check_pixels(source.size[0], source.size[1], "The image")
        with _one_sentence("The image", policy):  # Pillow decodes an opened file only here
            source.load()
        opened: Image = source
    else:
        opened = _decoded(resolve_source(source, "image", policy), policy)
    return in_rgb(pil.ImageOps.exif_transpose(opened), opened.format, getattr(opened, "tag_v2", NO_TAGS))


def image_size(source: Any, policy: MediaPolicy = LOCAL) -> tuple[int, int]:
    """(width, height) of a source of `load_image`, by its header alone and before EXIF rotation.

    Raises AntiphonError if it is not an image.
    """
    if isinstance(source, np.ndarray):
        if source.ndim not in (2, 3) or not source.size:
            return 1, 1  # `load_image` raises the error
        width, height = source.shape[1], source.shape[0]
    elif isinstance(source, _pillow().Image.Image):
        width, height = int(source.size[0]), int(source.size[1])
    else:
        resolved = resolve_source(source, "image", policy)
        width, height = _checked_size(resolved, require_format(resolved, "image", _label(resolved)), policy)
    policy.check_pixels(width, height, "The image")
    return width, height


def _decoded(source: Path | bytes, policy: MediaPolicy) -> Image:
    """The image in a file, decoded by Pillow's plugin for its format."""
    found = require_format(source, "image", _label(source))
    _checked_size(source, found, policy)
    with open_media(source) as stream, _one_sentence(_label(source), policy):
        # PIL.Image.open would print warnings about large pictures that the policy allows.
        image: Image = _plugin(found.pillow)(stream, "")
        policy.check_pixels(*image.size, "The image")
        image.load()
    return image


@contextmanager
def _one_sentence(label: str, policy: MediaPolicy) -> Iterator[None]:
    """Turn the errors of Pillow for broken files into AntiphonError."""
    try:
        yield
    except BROKEN_IMAGE as error:
        raise InvalidInput(
            f"{label} cannot be read ({reason(error)}); give a {WANTED['image']} file."
        ) from None
    except _pillow().Image.DecompressionBombError:
        raise InvalidInput(
            f"The image has too many pixels; give one of at most {policy.max_pixels:,}."
        ) from None


def _checked_size(source: Path | bytes, found: Format, policy: MediaPolicy) -> tuple[int, int]:
    """(width, height) of an image file. Raises AntiphonError if its header is broken or `policy` forbids its
    size.
    """
    header = read_header(source, found)
    if header is None:
        raise InvalidInput(
            f"{_label(source)} cannot be read (its {found.name} header is broken); "
            f"give a {WANTED['image']} file."
        )
    policy.check_pixels(header.width, header.height, "The image")
    policy.check_pixels(*header.tile, "A tile of the image")
    if header.frames > MOST_FRAMES:
        raise InvalidInput(
            f"The image is an animation of more than {MOST_FRAMES:,} frames; give one picture of it."
        )
    return header.width, header.height


def _label(source: Path | bytes) -> str:
    return "The image" if isinstance(source, bytes) else f"The image {short_path(source)}"


BROKEN_IMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
)
"""The errors of Pillow's plugins for broken files."""


PLUGINS = {"PNG": "Png", "JPEG": "Jpeg", "GIF": "Gif", "BMP": "Bmp", "WEBP": "WebP", "TIFF": "Tiff"}


def _plugin(name: str) -> Any:
    """The opener of one format. Importing a plugin of Pillow registers it."""
    import_module(f"PIL.{PLUGINS[name]}ImagePlugin")
    return _pillow().Image.OPEN[name][0]


def read_image(
    source: Any, settings: VisionSettings, policy: MediaPolicy = LOCAL, options: PixelOptions = AS_THE_BUNDLE
) -> np.ndarray:
    """The image in `source` (see `load_image`), resized as `settings` and `options` say: uint8 [height,
    width, 3].
    """
    image = load_image(source, policy)
    return resized(image, image_sizes((image.height, image.width), options, settings), settings)


def patch_grid(frames: int, shape: Sequence[int], settings: VisionSettings) -> tuple[int, int, int]:
    """(temporal patches, rows, columns) of the patches of `frames` resized frames of `shape` (height, width,
    ...).
    """
    return (
        -(-frames // settings.temporal_patch_size),
        shape[0] // settings.patch_size,
        shape[1] // settings.patch_size,
    )


def resized(image: Image, sizes: Sequence[tuple[int, int]], settings: VisionSettings) -> np.ndarray:
    """The image as uint8 [height, width, 3], resized to each (height, width) of `sizes` in turn."""
    for height, width in sizes:
        image = image.resize((width, height), _pillow().Image.Resampling(settings.resample))
    return np.asarray(image)


def frame_patches(frames: Sequence[np.ndarray], settings: VisionSettings) -> np.ndarray:
    """Normalise resized frames uint8 [height, width, 3] and cut them: float32 [time, patches, patch_dim].

    patch_dim = 3 * temporal_patch_size * patch_size^2. The last frame is repeated to fill the last temporal
    patch.
    """
    size, merge, depth = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    times, rows, columns = patch_grid(len(frames), frames[0].shape, settings)
    mean, deviation = np.array(settings.image_mean, np.float32), np.array(settings.image_std, np.float32)
    patches = np.empty((times, rows * columns, 3 * depth * size * size), np.float32)
    for time in range(times):
        group = np.stack([frames[min(time * depth + offset, len(frames) - 1)] for offset in range(depth)])
        # [depth, height, width, 3]
        pixels = (group.astype(np.float32) * np.float32(settings.rescale_factor) - mean) / deviation
        blocks = pixels.reshape(depth, rows // merge, merge, size, columns // merge, merge, size, 3)
        # Patches of one merged square stand together: (row block, column block, row in it, column in
        # it, channel, frame, y, x).
        patches[time] = blocks.transpose(1, 4, 2, 5, 7, 0, 3, 6).reshape(rows * columns, -1)
    return patches


def _pillow() -> Any:
    require_extra("media", "Reading images and video", "PIL")
    import PIL.Image
    import PIL.ImageOps

    return PIL
