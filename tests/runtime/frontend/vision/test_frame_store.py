from __future__ import annotations

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.vision import frame_store
from antiphon.runtime.frontend.vision.frame_store import FrameStore


@pytest.mark.parametrize("in_memory", [0, 1000, 10**6])
def test_frames_come_back_in_any_order_and_again(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(frame_store, "MOST_IN_MEMORY", in_memory or 1)
    frames = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), np.uint8)
    store = FrameStore(iter(frames))
    assert (len(store), store.height, store.width) == (7, 6, 8)
    for index in (3, 0, 6, 6, 1, -1):
        np.testing.assert_array_equal(store[index], frames[index])


def test_a_repeated_frame_is_kept_once() -> None:
    first, second = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    store = FrameStore([first, first, second, second])
    assert len(store) == 4 and [int(store[index].max()) for index in range(4)] == [0, 0, 1, 1]
    assert store._file.tell() <= 2 * first.size


def test_no_frames_are_none() -> None:
    assert len(FrameStore([])) == 0


def test_a_full_folder_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: object) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(frame_store.tempfile, "SpooledTemporaryFile", lambda max_size: Full())
    with pytest.raises(AntiphonError, match="find no room in the folder for temporary files"):
        FrameStore([np.zeros((4, 4, 3), np.uint8)])
