"""Runs of the encoders: their inputs, computed on demand, and the prompt rows for their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from ..audio.audio_layout import audio_calls
from ..vision.image import frame_patches
from ..vision.picture_size import VisionSettings
from ..vision.vision_layout import vision_feeds, vision_spans

Feeds = dict[str, np.ndarray]
AUDIO, VISION = "audio_encoder", "vision_encoder"


@dataclass(frozen=True, eq=False)
class EncoderCall:
    """One run of an encoder stage and the prompt rows for its result."""

    stage: str
    """The name of the stage: audio_encoder or vision_encoder."""

    feeds: Callable[[], Feeds]
    """Computes the stage's inputs. It may be called again and returns the same values."""

    rows: np.ndarray
    """int64 [features]: token positions in the prompt that the features fill, in order."""


class Frames(Protocol):
    """Resized frames uint8 [height, width, 3], by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


def vision_encoder_calls(
    frames: Frames,
    grid: tuple[int, int, int],
    rows: np.ndarray,
    settings: VisionSettings,
    num_position_embeddings: int,
) -> Iterator[EncoderCall]:
    """Yield the calls for one image or one video of `grid` whose tokens are at `rows`. Pixels are computed
    only inside `feeds()`.
    """
    merged = grid[1] * grid[2] // settings.merge_size**2

    def feeds(first: int, end: int) -> Feeds:
        depth = settings.temporal_patch_size
        patches = frame_patches(
            [frames[index] for index in range(first * depth, min(end * depth, len(frames)))], settings
        )
        return vision_feeds(
            patches.reshape(-1, patches.shape[2]),
            (end - first, *grid[1:]),
            settings.merge_size,
            num_position_embeddings,
        )

    for first, end in vision_spans(grid):
        yield EncoderCall(VISION, partial(feeds, first, end), rows[first * merged : end * merged])


def clip_calls(
    features: Sequence[np.ndarray], rows: np.ndarray, n_window: int, n_window_infer: int, convolutions: int
) -> Iterator[EncoderCall]:
    """Yield the calls for clips whose log-mel features, float32 [mel, frames] each, are in memory. `rows`:
    the rows of the clips' tokens, one clip after the other.
    """
    first = 0
    for feeds in (
        audio_calls(features, n_window, n_window_infer, convolutions=convolutions) if features else ()
    ):
        end = first + len(feeds["output_index"])
        yield EncoderCall(AUDIO, partial(dict, feeds), rows[first:end])
        first = end
