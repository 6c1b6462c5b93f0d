"""Where the options of a part meet the limits: what is left out costs nothing,
what is asked for is counted before any work.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio.raw_audio import realtime_audio
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.frontend.prompt import media_loading
from antiphon.runtime.frontend.prompt.front_end import FrontEnd
from antiphon.runtime.frontend.vision.image import load_image

from . import absurd_media as absurd
from .media_parts import clip, frames
from .vision.test_video import grey_film

RATE = 16000
SECOND = 13
"""Tokens of a second of sound."""


def audio_tokens(front_end: FrontEnd, source: Any, **options: Any) -> int:
    ids = front_end.prompt(
        [{"role": "user", "content": [{"type": "audio", "audio": source, **options}]}]
    ).token_ids
    return int((ids == front_end.audio).sum())


def picture_tokens(front_end: FrontEnd, kind: str, source: Any, **options: Any) -> int:
    ids = front_end.prompt([{"role": "user", "content": [{"type": kind, kind: source, **options}]}]).token_ids
    return int((ids == (front_end.image if kind == "image" else front_end.video)).sum())


@pytest.fixture
def two_hours(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    absurd.sparse_wav(path, 7200)
    return path


def test_a_span_of_a_long_recording_is_read_where_the_policy_allows_the_seconds_up_to_its_end(
    frontend_folder: Path, two_hours: Path
) -> None:
    front_end = FrontEnd(frontend_folder, MediaPolicy(max_seconds=3600))
    assert (
        audio_tokens(front_end, two_hours, audio_end=1)
        == audio_tokens(front_end, two_hours, audio_start=100, audio_end=101)
        == SECOND
    )
    for options, sentence in [
        ({}, "The audio is 7,200.0 s long, expected at most 3,600.0 s"),
        ({"audio_start": 1}, "The audio is 7,200.0 s long, expected at most 3,600.0 s"),
        (
            {"audio_start": 7000, "audio_end": 7001},
            "The audio is asked for up to 7,001.0 s, expected at most 3,600.0 s",
        ),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            audio_tokens(front_end, two_hours, **options)


def test_a_span_of_a_long_recording_is_read_at_once_and_not_streamed(
    front_end: FrontEnd, two_hours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_loading.MediaLoader, "_stream", lambda *_: pytest.fail("streamed"))
    assert audio_tokens(front_end, two_hours, audio_start=10, audio_end=11) == SECOND


def test_the_context_is_asked_for_the_seconds_that_are_heard(frontend_folder: Path, two_hours: Path) -> None:
    small = FrontEnd(frontend_folder, context=100)
    minute = clip(60 * RATE)
    for source in (minute, two_hours):
        assert audio_tokens(small, source, audio_start=40, audio_end=41) == SECOND
        with pytest.raises(AntiphonError, match="expected at most"):
            audio_tokens(small, source, audio_start=20)
        with pytest.raises(AntiphonError, match="expected at most|The media need"):
            audio_tokens(small, source, audio_start=20, audio_end=30)


def test_an_array_that_lies_on_its_side_is_as_long_as_its_longer_axis(frontend_folder: Path) -> None:
    small, sideways = FrontEnd(frontend_folder, context=100), clip(2 * RATE).reshape(2, RATE)
    assert audio_tokens(small, sideways) == SECOND
    with pytest.raises(AntiphonError, match="The audio is 60.0 s long"):
        audio_tokens(small, clip(120 * RATE).reshape(2, -1))


def test_raw_samples_are_data_within_the_policy(frontend_folder: Path) -> None:
    served = FrontEnd(frontend_folder, MediaPolicy.for_server(max_data_bytes=50_000, max_seconds=0.8))
    second = np.zeros(24000, "<i2").tobytes()
    for raw, sentence in [
        (second, "The audio is 1.0 s long, expected at most 0.8 s"),
        (2 * second, "The audio data has 96,000 bytes, expected at most 50,000"),
    ]:
        coded = base64.b64encode(raw).decode()
        for part in (
            {"type": "input_audio", "audio": coded},
            {"type": "input_audio", "input_audio": {"data": coded, "format": "pcm16"}},
            {"type": "input_audio", "input_audio": {"data": raw, "format": "pcm16"}},
        ):
            with pytest.raises(AntiphonError, match=sentence):
                served.prompt([{"role": "user", "content": [part]}])


def test_text_that_is_almost_base64_is_told_from_it_at_once() -> None:
    assert realtime_audio("A" + " " * 200_000 + "!", "part") is None


class Upload:
    """What can be read once."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, most: int = -1) -> bytes:
        return self._stream.read(most)


def test_an_open_file_is_data_within_the_policy_and_read_once(frontend_folder: Path) -> None:
    data = absurd.wav(RATE, samples=RATE)
    served = FrontEnd(frontend_folder, MediaPolicy.for_server(max_data_bytes=len(data)))
    assert (
        audio_tokens(served, Upload(data))
        == audio_tokens(served, io.BytesIO(data))
        == audio_tokens(served, data)
    )
    tight = FrontEnd(frontend_folder, MediaPolicy(max_data_bytes=1000))
    for kind in ("audio", "image", "video"):
        with pytest.raises(
            AntiphonError, match=f"The {kind} data has 1,001 bytes or more, expected at most 1,000"
        ):
            tight.prompt([{"role": "user", "content": [{"type": kind, kind: io.BytesIO(data)}]}])


def test_a_picture_of_16_bits_is_read_as_data_by_its_own_plugin_within_the_policy() -> None:
    pil, ramp, buffer = (
        pytest.importorskip("PIL.Image"),
        np.arange(256, dtype=np.uint16).reshape(16, 16),
        io.BytesIO(),
    )
    pil.fromarray(ramp * 257).save(buffer, "PNG")
    sent = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    np.testing.assert_array_equal(np.asarray(load_image(sent, MediaPolicy.for_server()))[:, :, 1], ramp)
    deep = ramp * 257
    for source in (sent, buffer, deep, deep[:, :, None], pil.fromarray(deep)):
        with pytest.raises(AntiphonError, match="The image is 16 x 16 pixels, expected at most 255 in all"):
            load_image(source, MediaPolicy.for_server(max_pixels=255))


def test_the_size_that_a_part_asks_for_counts_against_the_context(
    frontend_folder: Path, front_end: FrontEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    photograph = frames(600, 600)
    whole, low = (
        picture_tokens(front_end, "image", photograph),
        picture_tokens(front_end, "image", photograph, max_pixels=128 * 128),
    )
    assert low < whole
    small = FrontEnd(frontend_folder, context=whole - 1)
    assert picture_tokens(small, "image", photograph, max_pixels=128 * 128) == low
    assert picture_tokens(small, "image", photograph, resized_height=128, resized_width=128) == low
    monkeypatch.setattr(media_loading, "read_image", lambda *_: pytest.fail("decoded"))
    for options in ({}, {"min_pixels": 600 * 600}):
        with pytest.raises(
            AntiphonError, match="The media need .* tokens or more, the model's context holds"
        ):
            picture_tokens(small, "image", photograph, **options)


def test_the_frames_that_a_part_asks_for_count_against_the_context_and_the_policy(
    frontend_folder: Path, front_end: FrontEnd, tmp_path: Path
) -> None:
    path = str(grey_film(tmp_path / "a.mp4"))  # 20 frames, 2 s
    pair = picture_tokens(front_end, "video", path, nframes=2)
    small = FrontEnd(frontend_folder, context=3 * pair)
    assert picture_tokens(small, "video", path, nframes=6) == 3 * pair
    for options in ({"nframes": 8}, {"fps": 8}, {"min_frames": 8}):
        with pytest.raises(
            AntiphonError, match="The video has .* tokens or more, the model's context has room for"
        ):
            picture_tokens(small, "video", path, **options)
    tight = FrontEnd(frontend_folder, MediaPolicy(max_frames=6, max_seconds=1.5))
    assert picture_tokens(tight, "video", path, video_end=0.5) == pair
    with pytest.raises(AntiphonError, match="The video is 2.0 s long, expected at most 1.5 s"):
        picture_tokens(tight, "video", path, nframes=2)
    with pytest.raises(AntiphonError, match="The video has 13 frames or more, expected at most 6"):
        picture_tokens(tight, "video", path, video_end=1.2)


def test_frames_in_a_list_are_within_the_policy_one_by_one(frontend_folder: Path, tmp_path: Path) -> None:
    picture, path = frames(64, 64), tmp_path / "a.png"
    path.write_bytes(absurd.png(64, 64))
    for policy, given, sentence in [
        (MediaPolicy(max_frames=3), [picture] * 4, "The video has 4 frames or more, expected at most 3"),
        (MediaPolicy(max_pixels=4095), [picture], "64 x 64 pixels, expected at most 4,095"),
        (MediaPolicy.for_server(), [str(path)], "local paths are not opened here"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            picture_tokens(FrontEnd(frontend_folder, policy), "video", given)
