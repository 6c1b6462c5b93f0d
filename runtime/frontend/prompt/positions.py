"""The (time, height, width) position of every token of a multimodal sequence.

There are two schemes. TM-RoPE (Qwen3-Omni) puts time on the first axis; source: get_rope_index of
Qwen3OmniMoePreTrainedModelForConditionalGeneration (transformers 5.23). All values are float32 as in the
source, since video times are fractional and rounding must be the same. With textual timestamps
(Qwen3.5-Omni), each temporal patch of a video is positioned like an image, and audio counts up like text;
source: Qwen3_5MoeModel.get_rope_index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class MediaItem:
    """The properties of one clip, image or video that decide its positions in a sequence.

    grid: patches (time, height, width) before merging, of an image or video. seconds_per_grid: time between
    two temporal patches of a video. audio_tokens: tokens of a clip, or of the audio track used with a video
    (0: none). role: the role of its message. times: seconds of each temporal patch of a video, as in its
    timestamps.
    """

    kind: Literal["audio", "image", "video"]
    grid: tuple[int, int, int] = (0, 0, 0)
    seconds_per_grid: float = 0.0
    audio_tokens: int = 0
    role: str = "user"
    times: tuple[float, ...] = ()


@dataclass(frozen=True)
class PositionRules:
    """Ids and constants of the checkpoint's configuration that decide positions.

    `textual_time`: the time is given by timestamps in the text; then the ids `image` and `video` are needed.
    """

    audio_start: int
    vision_start: int
    position_id_per_seconds: int
    spatial_merge_size: int
    textual_time: bool = False
    image: int = -1
    video: int = -1


def multimodal_positions(
    token_ids: np.ndarray, media: Sequence[MediaItem], rules: PositionRules
) -> tuple[np.ndarray, float]:
    """The positions of a sequence, and the position of the token after it.

    `token_ids`: int64 [tokens] with every placeholder already expanded. `media`: in order of appearance.
    Returns (positions float32 [3, tokens], next position = largest position + 1). Text counts up by one on
    all three axes. Each piece of media starts after the text before it, and the text after it continues from
    its last row.
    """
    if rules.textual_time:
        return _positions_of_patches(token_ids, media, rules)
    tokens = len(token_ids)
    pieces: list[np.ndarray] = []
    cursor, base = 0, np.float32(0)
    for item in media:
        start_id = rules.audio_start if item.kind == "audio" else rules.vision_start
        starts = np.flatnonzero(token_ids[cursor:] == start_id)
        assert len(starts), f"the sequence holds no start token for its {item.kind}"
        # A video with its audio has two tokens before and two after its rows: vision_start audio_start ...
        # audio_end vision_end.
        markers = 2 if item.kind == "video" and item.audio_tokens else 1
        text = int(starts[0]) + markers
        pieces.append(_text(text, base))
        rows, last = _media_rows(item, base + np.float32(text), rules)
        pieces.append(rows)
        base = np.float32(last + 1)
        pieces.append(_text(markers, base))
        base = np.float32(base + markers)
        cursor += text + rows.shape[1] + markers
    assert cursor <= tokens, "the media need more tokens than the sequence has"
    pieces.append(_text(tokens - cursor, base))
    positions = np.concatenate(pieces, axis=1)
    return positions, float(positions.max() + np.float32(1)) if tokens else 0.0


def _positions_of_patches(
    token_ids: np.ndarray, media: Sequence[MediaItem], rules: PositionRules
) -> tuple[np.ndarray, float]:
    """`multimodal_positions` for textual time: every run of image or video tokens is one temporal patch."""
    kinds = np.where(token_ids == rules.image, 1, np.where(token_ids == rules.video, 2, 0))
    edges = np.flatnonzero(np.diff(kinds, prepend=-1, append=-1)).tolist()
    patches = {
        1: iter([item for item in media if item.kind == "image"]),
        2: iter([item for item in media if item.kind == "video" for _ in range(item.grid[0])]),
    }
    pieces: list[np.ndarray] = [np.zeros((3, 0), np.float32)]
    base = np.float32(0)
    for start, stop in zip(edges, edges[1:], strict=False):
        if kinds[start] == 0:
            pieces.append(_text(stop - start, base))
            base += np.float32(stop - start)
            continue
        _, rows, columns = next(patches[int(kinds[start])]).grid
        rows, columns = rows // rules.spatial_merge_size, columns // rules.spatial_merge_size
        assert rows * columns == stop - start, (
            f"a run of {stop - start} vision tokens for a patch of {rows} x {columns}"
        )
        row, column = np.divmod(np.arange(stop - start), columns)
        pieces.append(np.stack([np.zeros_like(row), row, column]).astype(np.float32) + base)
        base += np.float32(max(rows, columns))
    positions = np.concatenate(pieces, axis=1)
    return positions, float(positions.max() + np.float32(1)) if len(token_ids) else 0.0


def _text(length: int, base: np.float32) -> np.ndarray:
    return np.broadcast_to(np.arange(length, dtype=np.float32) + base, (3, length))


def _media_rows(item: MediaItem, base: np.float32, rules: PositionRules) -> tuple[np.ndarray, np.float32]:
    """Positions [3, rows] of one piece of media that starts at `base`, and the position after which the text
    continues.
    """
    audio = _text(item.audio_tokens, base)
    if item.kind == "audio":
        return audio, audio.max()
    vision = _vision_rows(item, base, rules)
    if not item.audio_tokens:
        return vision, vision.max()
    order = interleave(vision[0], audio[0])
    both = np.concatenate([vision, audio], axis=1)
    # The reference continues from the tail that it appends when one track ends, not from the overall maximum.
    from_audio = order >= vision.shape[1]
    tail = int(np.flatnonzero(from_audio != from_audio[-1])[-1]) + 1
    return both[:, order], both[:, order[tail:]].max()


def _vision_rows(item: MediaItem, base: np.float32, rules: PositionRules) -> np.ndarray:
    """float32 [3, time * height * width / merge^2]: time in seconds times position_id_per_seconds,
    rows and columns of merged patches.
    """
    time, height, width = (
        item.grid[0],
        item.grid[1] // rules.spatial_merge_size,
        item.grid[2] // rules.spatial_merge_size,
    )
    ticks = np.arange(time, dtype=np.float32)
    if item.kind == "video":
        ticks = ticks * np.float32(item.seconds_per_grid)
    ticks = ticks * np.float32(rules.position_id_per_seconds)
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    axes = np.meshgrid(ticks, rows, columns, indexing="ij")
    return np.stack([axis.reshape(-1) for axis in axes]) + base


def interleave(video_times: np.ndarray, audio_times: np.ndarray) -> np.ndarray:
    """Indices int64 into video followed by audio that sort two sorted tracks by time; at equal times, video
    comes first.
    """
    return np.argsort(np.concatenate([video_times, audio_times]), kind="stable")
