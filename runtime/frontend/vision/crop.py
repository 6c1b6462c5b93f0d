"""Cut a recording to a span of seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...bundle.errors import InvalidInput
from ..media.media_options import Span


def cropped_array(samples: np.ndarray, rate: int, span: Span) -> np.ndarray:
    """The samples of `span` of an array whose first axis is time. Raises AntiphonError if there are none.

    Source: process_audio_info of qwen-omni-utils 0.0.9 for arrays: from int(rate * start) to int(rate * end).
    """
    if span.is_whole or len(samples) == 0:
        return samples
    kept = samples[int(rate * span.start) : None if span.end is None else int(rate * span.end)]
    if len(kept) == 0:
        raise nothing_left(span, len(samples) / rate)
    return kept


def cropped(
    blocks: Iterator[tuple[np.ndarray, int]], span: Span, count: Callable[[float], int] = int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the blocks of a recording, each with its rate, cut to `span`. Blocks after its end are not read.

    `count` converts seconds times rate to whole samples. Raises AntiphonError if no samples remain. Source:
    librosa.load 0.11 with offset and duration, as process_audio_info of qwen-omni-utils 0.0.9 calls it: int
    for files that libsndfile reads, round for those that FFmpeg reads.
    """
    if span.is_whole:
        yield from blocks
        return
    passed, found, rate = 0, False, 1
    for block, rate in blocks:
        first = count(span.start * rate)
        end = None if span.end is None else first + count((span.end - span.start) * rate)
        kept = block[max(0, first - passed) : None if end is None else max(0, end - passed)]
        passed += len(block)
        if len(kept):
            found = True
            yield kept, rate
        if end is not None and passed >= end:
            break
    if passed and not found:
        raise nothing_left(span, passed / rate)


def nothing_left(span: Span, seconds: float) -> InvalidInput:
    """The error for a span that starts after the end of a recording."""
    return InvalidInput(
        f"The audio is {seconds:g} s long and has no sample from {span.start:g} s on within its span; "
        "give a start before its end."
    )
