"""Feeds of the stage `vision_encoder` from the patches of one image or one video.

Patches are in the merge order of the Hugging Face processor: blocks of merge x merge neighbours row by row,
and row by row within a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ...bundle.errors import InvalidInput

Feeds = dict[str, np.ndarray]


def vision_layout(grid_thw: Sequence[int], merge_size: int, num_position_embeddings: int) -> Feeds:
    """The positions of the patches of one temporal patch; they are the same for all temporal patches.

    grid_thw: temporal patches, rows and columns of patches. The learned position table is a square of
    `num_position_embeddings` rows, stretched over the image so that its corners lie on the image's corners.
    Returns position_index int64 [patches, 4] and position_weight float32 [patches, 4] (the four neighbours in
    that table, bilinear), and rotary_positions int64 [patches, 2] (row, column). Raises AntiphonError for a
    grid that does not split into blocks of `merge_size`. Source: get_vision_interpolation_indices_and_weights
    and get_vision_position_ids (transformers).
    """
    _, height, width = _checked_grid(grid_thw, merge_size)
    side = math.isqrt(num_position_embeddings)
    raster = np.arange(height * width).reshape(
        height // merge_size, merge_size, width // merge_size, merge_size
    )
    rows, columns = np.divmod(raster.transpose(0, 2, 1, 3).reshape(-1), width)
    row_index, row_weight = _neighbours(height, side)
    column_index, column_weight = _neighbours(width, side)
    index = row_index[rows][:, :, None] * side + column_index[columns][:, None, :]  # [patches, 2, 2]
    weight = row_weight[rows][:, :, None] * column_weight[columns][:, None, :]
    return {
        "position_index": index.reshape(-1, 4),
        "position_weight": weight.reshape(-1, 4),
        "rotary_positions": np.stack((rows, columns), axis=1),
    }


def vision_feeds(
    patches: np.ndarray, grid_thw: Sequence[int], merge_size: int, num_position_embeddings: int
) -> Feeds:
    """All feeds of the stage for one image or one video: those of `vision_layout`, and pixels float32
    [frames, patches, patch_dim].

    patches: float [frames * rows * columns, patch_dim] in merge order, as the processor gives them. Raises
    AntiphonError if their number does not fit the grid, and for a bad grid.
    """
    frames, height, width = _checked_grid(grid_thw, merge_size)
    if patches.ndim != 2 or len(patches) != frames * height * width:
        raise InvalidInput(
            f"Patches of the shape {patches.shape} do not fill a grid of {frames} x {height} x {width}; "
            "make both from one picture."
        )
    pixels = np.asarray(patches, np.float32).reshape(frames, height * width, -1)
    return {"pixels": pixels, **vision_layout(grid_thw, merge_size, num_position_embeddings)}


def vision_spans(grid_thw: Sequence[int], max_patches: int = 16384) -> Iterator[tuple[int, int]]:
    """Yield the temporal patches (first, end) of several calls of at most `max_patches` patches, but of at
    least one temporal patch; this bounds memory.

    Attention stays within a temporal patch, so the joined features of the calls equal those of one large
    call.
    """
    times, height, width = grid_thw
    step = max(1, max_patches // (height * width))
    return ((start, min(start + step, times)) for start in range(0, times, step))


def _checked_grid(grid_thw: Sequence[int], merge_size: int) -> tuple[int, int, int]:
    frames, height, width = (int(size) for size in grid_thw)
    if min(frames, height, width) < 1 or height % merge_size or width % merge_size:
        raise InvalidInput(
            f"A grid of {frames} x {height} x {width} patches has no whole blocks of {merge_size} x "
            f"{merge_size}; resize the picture to whole blocks."
        )
    return frames, height, width


def _neighbours(size: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The two nearest of `side` table rows for each of `size` positions on an axis, int64 [size, 2], and
    their float32 weights.
    """
    place = np.arange(size, dtype=np.float32) * np.float32(side - 1) / np.float32(max(size - 1, 1))
    lower = np.floor(place).astype(np.int64)
    upper_weight = place - lower.astype(np.float32)
    index = np.stack((lower, np.minimum(lower + 1, side - 1)), axis=1)
    return index, np.stack((1 - upper_weight, upper_weight), axis=1)
