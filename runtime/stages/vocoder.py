"""Code2Wav of one answer: frames in, packets of sound out. Packets of any sizes give the same samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..bundle.errors import InvalidInput
from ..bundle.numeric import LARGEST_COUNT, is_whole
from ..bundle.said import short
from ..engines.base import Engine
from ..scheduling.engine_lock import EngineLock
from .aria import Frame

DEFAULT_SCHEDULE = (1, 2, 4, 8)
"""Frames of the first packets; the last size repeats.

One frame is the fastest first sound; larger packets cost less each.
"""


def check_schedule(schedule: Sequence[int]) -> tuple[int, ...]:
    """The schedule as a tuple.

    Raises AntiphonError when it is empty or holds anything but positive integers.
    """
    sizes = (
        tuple(schedule)
        if isinstance(schedule, Sequence) or isinstance(schedule, np.ndarray) and schedule.ndim
        else ()
    )
    if not sizes or not all(is_whole(size) and 1 <= size <= LARGEST_COUNT for size in sizes):
        raise InvalidInput(
            f"packet_schedule is {short(schedule)}, expected one or more positive numbers of frames, "
            f"such as {DEFAULT_SCHEDULE}."
        )
    return tuple(int(size) for size in sizes)


def packets(frames: Callable[[], Frame | None], schedule: Sequence[int]) -> Iterator[list[Frame]]:
    """Group the frames that `frames` returns (None at the end) by `schedule`.

    The last packet holds the rest and is never empty.
    """
    place = 0
    packet: list[Frame] = []
    while (frame := frames()) is not None:
        packet.append(frame)
        if len(packet) == schedule[min(place, len(schedule) - 1)]:
            yield packet
            packet = []
            place += 1
    if packet:
        yield packet


class Vocoder:
    """The sound of one answer. `priority` is called before every run and may raise to stop."""

    def __init__(self, engine: Engine, engine_lock: EngineLock, priority: Callable[[], int]) -> None:
        self._engine, self._engine_lock, self._priority = engine, engine_lock, priority
        self._states = engine.new_states(1).allocate()
        self._to_drop = engine.entry.constant("lead_samples")
        self.sample_rate = engine.entry.constant("sample_rate")
        self._frames = 0
        self.seconds = 0.0
        """Seconds of all runs, waiting not counted."""

    def decode(self, packet: Sequence[Frame]) -> np.ndarray:
        """Samples float32 [n] of the next frames; the graph's lead is dropped once,
        at the start of the answer.
        """
        codes = np.stack([frame.codes for frame in packet])[None]  # [1, frames, groups]
        self._states.reserve(len(packet))
        priority = self._priority()
        feeds = {"codes": codes, "past_length": np.array([self._frames])}
        outputs, seconds = self._engine_lock.run(
            priority, self._engine.run, feeds, (self._states,), ("audio",)
        )
        audio = outputs["audio"][0]
        self.seconds += seconds
        self._states.advance(len(packet))
        self._frames += len(packet)
        dropped = min(self._to_drop, len(audio))
        self._to_drop -= dropped
        return audio[dropped:]
