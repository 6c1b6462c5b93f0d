"""Feeds of the stage `audio_encoder` from log-mel clips: chunks, attention windows and token positions.

A clip is cut into chunks of `2 * n_window` frames and into windows of `n_window_infer` frames. The
convolutions see one chunk at a time; the transformer attends within one window. The layout is that of
Qwen3OmniMoeAudioEncoder (transformers). A chunk shorter than the longest chunk of the call is padded with
zeros before the convolutions, and the tokens of the padding are dropped after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from ...bundle.errors import InvalidInput

Feeds = dict[str, np.ndarray]


def audio_tokens(frames: int, n_window: int, convolutions: int = 3) -> int:
    """The number of tokens that the encoder makes from a clip of `frames` mel frames.

    Each convolution halves the length of a chunk and rounds up. With n_window 50, a second of 100 frames
    gives 13 tokens after three convolutions and 7 after four. Source: _get_feat_extract_output_lengths, whose
    literal 13 is the number of tokens of a full chunk at n_window 50.
    """
    chunks, rest = divmod(frames, 2 * n_window)
    return chunks * _downsampled(2 * n_window, convolutions) + _downsampled(rest, convolutions)


def audio_layout(
    clips: Sequence[np.ndarray],
    n_window: int,
    n_window_infer: int,
    min_chunk_frames: int = 1,
    convolutions: int = 3,
) -> tuple[Feeds, list[int]]:
    """Return the feeds of one call and the number of tokens of each clip.

    The encoder returns the features in the order of the clips. clips: float [mel, frames] each, of one mel
    size and at least one frame. Returns chunks float32 [chunks, mel, frames], window_index int64 [windows,
    window_tokens], window_length int64 [windows], output_index int64 [tokens]. Chunks are padded to at least
    `min_chunk_frames`. Raises AntiphonError if there is no clip, a clip is empty, or the clips are not mel
    features of one size.
    """
    _check(clips)
    full = 2 * n_window
    chunk_lengths = np.concatenate([_pieces(clip.shape[1], full) for clip in clips])
    chunks = _chunks(clips, full, max(int(chunk_lengths.max()), min_chunk_frames))
    chunk_tokens = _downsampled(chunks.shape[2], convolutions)
    # rows of the convolutions' output
    token_rows = _occupied(
        np.array([_downsampled(int(length), convolutions) for length in chunk_lengths]), chunk_tokens
    )

    tokens = [audio_tokens(clip.shape[1], n_window, convolutions) for clip in clips]
    window_limit = chunk_tokens * (n_window_infer // full)
    window_length = np.concatenate([_pieces(count, window_limit) for count in tokens])
    window_index = np.zeros((len(window_length), int(window_length.max())), np.int64)
    output_index = _occupied(window_length, window_index.shape[1])
    window_index.reshape(-1)[output_index] = token_rows
    return {
        "chunks": chunks,
        "window_index": window_index,
        "window_length": window_length,
        "output_index": output_index,
    }, tokens


def audio_calls(
    clips: Sequence[np.ndarray],
    n_window: int,
    n_window_infer: int,
    max_windows: int = 8,
    convolutions: int = 3,
) -> Iterator[Feeds]:
    """Yield the feeds of several small calls. Their joined features equal those of one `audio_layout` call.

    Attention windows do not depend on each other, so a long recording is cut between windows. A call has at
    most `max_windows` windows, which bounds memory. Arguments and errors as for `audio_layout`.
    """
    _check(clips)
    frames = window_frames(n_window, n_window_infer)
    longest_chunk = min(2 * n_window, max(clip.shape[1] for clip in clips))
    windows = (clip[:, start : start + frames] for clip in clips for start in range(0, clip.shape[1], frames))
    return window_calls(windows, n_window, n_window_infer, longest_chunk, max_windows, convolutions)


def window_calls(
    windows: Iterable[np.ndarray],
    n_window: int,
    n_window_infer: int,
    longest_chunk: int,
    max_windows: int = 8,
    convolutions: int = 3,
) -> Iterator[Feeds]:
    """Yield the feeds for attention windows, `max_windows` windows per call.

    windows: float32 [mel, up to `window_frames`] each. `longest_chunk`: frames of the longest chunk of all
    windows; every chunk is padded to it.
    """
    remaining = iter(windows)
    while group := list(islice(remaining, max_windows)):
        yield audio_layout(group, n_window, n_window_infer, longest_chunk, convolutions)[0]


def window_frames(n_window: int, n_window_infer: int) -> int:
    """Mel frames of a full attention window, which holds whole chunks only."""
    return 2 * n_window * (n_window_infer // (2 * n_window))


def _check(clips: Sequence[np.ndarray]) -> None:
    if not clips:
        raise InvalidInput("The audio encoder got no clip; give at least one, or leave the encoder out.")
    for number, clip in enumerate(clips):
        if clip.ndim != 2 or clip.shape[0] != clips[0].shape[0]:
            raise InvalidInput(
                f"Audio clip {number} has the shape {clip.shape}, "
                "expected [mel, frames] with the first clip's mel size; compute it again."
            )
        if clip.shape[1] == 0:
            raise InvalidInput(
                f"Audio clip {number} is empty; expected at least one mel frame (10 ms of sound); "
                "leave the clip out."
            )


def _downsampled(frames: int, convolutions: int) -> int:
    """Frames after `convolutions` convolutions of stride 2, each rounding up."""
    return -(-frames // 2**convolutions)


def _pieces(length: int, limit: int) -> np.ndarray:
    """Lengths of the pieces when `length` is cut after every `limit`."""
    return np.diff(np.append(np.arange(0, length, limit), length))


def _occupied(lengths: np.ndarray, width: int) -> np.ndarray:
    """Flat indices of the first lengths[i] places of each row i of a [rows, width] table, in order."""
    return np.flatnonzero(np.arange(width) < lengths[:, None])


def _chunks(clips: Sequence[np.ndarray], full: int, frames: int) -> np.ndarray:
    """All chunks of all clips, padded with zeros to `frames`: float32 [chunks, mel, frames]."""
    mel = clips[0].shape[0]
    chunks = np.zeros((sum(-(-clip.shape[1] // full) for clip in clips), mel, frames), np.float32)
    row = 0
    for clip in clips:
        whole, rest = divmod(clip.shape[1], full)
        if whole:
            chunks[row : row + whole, :, :full] = (
                clip[:, : whole * full].reshape(mel, whole, full).transpose(1, 0, 2)
            )
        if rest:
            chunks[row + whole, :, :rest] = clip[:, whole * full :]
        row += whole + (rest > 0)
    return chunks
