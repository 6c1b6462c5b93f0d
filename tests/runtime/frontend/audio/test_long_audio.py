"""Long recordings are streamed: the same tokens and features as in memory, made when wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio import long_audio
from antiphon.runtime.frontend.audio.audio_stream import AudioStream
from antiphon.runtime.frontend.audio.long_audio import is_long, stream_calls
from antiphon.runtime.frontend.audio.mel import MelSettings
from antiphon.runtime.frontend.prompt.front_end import FrontEnd
from antiphon.runtime.frontend.prompt.media_loading import MediaLoader

from ..vision.test_video import grey_film

RATE = 16000


def recording(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))).astype(np.float32)


@pytest.fixture()
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_audio, "LONGEST_IN_MEMORY", 1.5)


@pytest.fixture()
def wav(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", recording(70), RATE, subtype="FLOAT")
    return tmp_path / "a.wav"


@pytest.mark.usefixtures("short_memory")
def test_length_is_known_for_every_kind_of_source(wav: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.flac", recording(1), RATE)
    broken, film = tmp_path / "broken.wav", grey_film(tmp_path / "a.mp4", sound=True)
    broken.write_text("no sound at all")
    long = [wav, wav.read_bytes(), recording(2), film, film.read_bytes()]
    short = [tmp_path / "short.flac", recording(1), grey_film(tmp_path / "b.mp4", frames=5), np.array(1.0)]
    assert [is_long(source, RATE) for source in (*long, *short)] == [True] * len(long) + [False] * len(short)
    with pytest.raises(AntiphonError, match="cannot be read as audio"):
        is_long(broken, RATE)


@pytest.mark.usefixtures("short_memory")
def test_a_streamed_prompt_equals_the_one_in_memory(
    front_end: FrontEnd, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [
        {"role": "user", "content": [{"type": "audio", "audio": str(wav)}, {"type": "text", "text": "?"}]}
    ]
    streamed = front_end.prompt(messages)
    monkeypatch.setattr(long_audio, "LONGEST_IN_MEMORY", 300.0)
    whole = front_end.prompt(messages)
    assert streamed.token_ids.tolist() == whole.token_ids.tolist() and streamed.media == whole.media
    assert len(streamed.calls) == len(whole.calls) == 2
    for ours, theirs in zip(streamed.calls, whole.calls, strict=True):
        assert ours.rows.tolist() == theirs.rows.tolist()
        feeds = ours.feeds()
        for name, values in theirs.feeds().items():
            np.testing.assert_array_equal(feeds[name], values)


@pytest.mark.usefixtures("short_memory")
def test_long_and_short_clips_stand_side_by_side(front_end: FrontEnd) -> None:
    content = [
        {"type": "audio", "audio": recording(seconds, seed)}
        for seed, seconds in enumerate((1.0, 9.0, 0.5, 2.0))
    ]
    prompt = front_end.prompt([{"role": "user", "content": content}])
    rows = np.concatenate([call.rows for call in prompt.calls])
    assert sorted(rows.tolist()) == np.flatnonzero(prompt.token_ids == front_end.audio).tolist()
    assert [len(call.rows) for call in prompt.calls] == [
        len(call.feeds()["output_index"]) for call in prompt.calls
    ]
    assert len(prompt.calls) == 3  # the short ones together


def test_calls_read_the_recording_once_in_order_and_anew_in_any(
    wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = AudioStream(wav, 0, MelSettings(), 50, 800)
    reads: list[int] = []
    calls_of = stream.calls
    monkeypatch.setattr(stream, "calls", lambda windows: (reads.append(windows), calls_of(windows))[1])
    calls = list(stream_calls(stream, np.arange(stream.tokens), 50, 800, 3, max_windows=2))
    assert [len(call.rows) for call in calls] == [208, 208, 208, 208, 78] and not reads
    first = [call.feeds()["chunks"] for call in calls]
    assert reads == [2]
    for number in (3, 3, 0, 4):
        np.testing.assert_array_equal(calls[number].feeds()["chunks"], first[number])
    assert len(reads) == 4  # for 3, 3 again and 0; 4 goes on from 0


def test_a_recording_that_changes_is_named_and_can_be_read_again_when_it_is_back(wav: Path) -> None:
    stream, content = AudioStream(wav, 0, MelSettings(), 50, 800), wav.read_bytes()
    calls = list(stream_calls(stream, np.arange(stream.tokens), 50, 800, 3))
    soundfile.write(wav, recording(20), RATE)
    with pytest.raises(AntiphonError, match="changed while it was read"):
        [call.feeds() for call in calls]
    wav.write_bytes(content)
    assert [len(call.feeds()["output_index"]) for call in calls] == [len(call.rows) for call in calls]


@pytest.mark.usefixtures("short_memory")
def test_the_sound_of_a_long_video_is_streamed(front_end: FrontEnd, tmp_path: Path) -> None:
    heard, silent = grey_film(tmp_path / "a.mp4", sound=True), grey_film(tmp_path / "b.mp4")
    content = [{"type": "video", "video": str(path)} for path in (heard, silent)]
    prompt = front_end.prompt([{"role": "user", "content": content}], use_audio_in_video=True)
    first, second = prompt.media
    assert first.audio_tokens > 20 and second.audio_tokens == 0
    (call,) = [call for call in prompt.calls if call.stage == "audio_encoder"]
    assert len(call.feeds()["output_index"]) == first.audio_tokens == len(call.rows)


def test_a_clip_that_is_longer_than_it_says_is_streamed(
    front_end: FrontEnd, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [{"role": "user", "content": [{"type": "audio", "audio": str(wav)}]}]
    expected = front_end.prompt(messages)
    monkeypatch.setattr("antiphon.runtime.frontend.audio.long_audio.LONGEST_IN_MEMORY", 0.5)
    monkeypatch.setattr("antiphon.runtime.frontend.prompt.media_loading.is_long", lambda *_: False)
    streams = []
    monkeypatch.setattr(
        MediaLoader,
        "_stream",
        lambda self, *rest, real=MediaLoader._stream: streams.append(1) or real(self, *rest),
    )
    assert front_end.prompt(messages).token_ids.tolist() == expected.token_ids.tolist() and streams == [1]
