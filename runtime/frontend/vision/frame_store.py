"""Store the resized frames of one image or video: in memory, or in a temporary file if they are many."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable

import numpy as np

from ...bundle.errors import AntiphonError
from ...bundle.said import reason, short_path

MOST_IN_MEMORY = 64 * 2**20
"""Bytes of frames of one image or video that stay in memory."""


class FrameStore:
    """Frames of one size, each uint8 [height, width, 3]. They are stored as they are decoded, and can be read
    any number of times.

    The file has no name and is deleted with the object. Raises AntiphonError if the folder for temporary
    files is full.
    """

    def __init__(self, frames: Iterable[np.ndarray]) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=MOST_IN_MEMORY)  # noqa: SIM115  closed with the object
        self._lock = threading.Lock()
        self._places: list[int] = []
        self.height = self.width = 0
        previous, stored = None, 0
        for frame in frames:
            if frame is not previous:  # a frame that is repeated is one object, and is stored once
                self.height, self.width = frame.shape[:2]
                self._write(np.ascontiguousarray(frame, np.uint8))
                previous, stored = frame, stored + 1
            self._places.append(stored - 1)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> np.ndarray:
        size = self.height * self.width * 3
        with self._lock:
            self._file.seek(self._places[index] * size)
            frame = self._file.read(size)
        return np.frombuffer(frame, np.uint8).reshape(self.height, self.width, 3)

    def __del__(self) -> None:
        self._file.close()

    def _write(self, frame: np.ndarray) -> None:
        try:
            self._file.write(frame.data)
        except OSError as error:
            raise AntiphonError(
                "The frames of the video find no room in the folder for temporary files, "
                f"{short_path(tempfile.gettempdir())} ({error.strerror or reason(error)}); "
                "free some or set TMPDIR."
            ) from None
