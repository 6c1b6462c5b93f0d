"""Live audio against the finished recording, for any way in which its samples arrive."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio.audio_layout import Feeds, audio_calls, audio_tokens, window_frames
from antiphon.runtime.frontend.audio.live_audio import LiveAudio
from antiphon.runtime.frontend.audio.mel import MelSettings, log_mel
from antiphon.runtime.frontend.audio.recording import read_audio

RATE = 16000
MEL = MelSettings(feature_size=16)
WINDOWS = (50, 200)
WINDOW_SAMPLES = 200 * MEL.hop_length


def sound(samples: int, seed: int = 0) -> np.ndarray:
    """Noise over a range of loudness wide enough to be cut, its loudest sample at the start."""
    generator = np.random.default_rng(seed)
    loudness = 10.0 ** generator.uniform(-7, -2, -(-samples // 3000)).repeat(3000)[:samples]
    clip = (generator.standard_normal(samples) * loudness).astype(np.float32)
    clip[:2000] *= np.float32(100.0 / loudness[0] * 1e-2)
    return clip


def pushed(live: LiveAudio, clip: np.ndarray, cuts: list[int]) -> list[Feeds]:
    feeds = [call for piece in np.split(clip, sorted(cuts)) for call in live.push(piece)]
    return feeds + live.finish()


def assert_same(found: list[Feeds], expected: list[Feeds]) -> None:
    assert len(found) == len(expected)
    for call, other in zip(found, expected, strict=True):
        assert list(call) == list(other)
        for name in call:
            np.testing.assert_array_equal(call[name], other[name], strict=True)


@settings(max_examples=80, deadline=None)
@given(
    st.one_of(st.integers(1, 900), st.integers(900, 100_000)),
    st.sampled_from([3, 4]),
    st.sampled_from([WINDOWS, (12, 75), (100, 800)]),
)
def test_feeds_equal_those_of_the_finished_clip_when_its_loudest_sound_comes_first(
    samples: int, convolutions: int, windows: tuple[int, int]
) -> None:
    clip = sound(samples, seed=samples)
    live = LiveAudio(MEL, *windows, convolutions)
    found = pushed(live, clip, [samples // 3])
    features = log_mel([clip], MEL)
    assert_same(found, list(audio_calls(features, *windows, max_windows=1, convolutions=convolutions)))
    assert live.tokens == audio_tokens(features[0].shape[1], windows[0], convolutions)
    assert live.largest_difference == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(4, 100_000),
    st.lists(st.integers(0, 100_000), max_size=40),
    st.sampled_from([RATE, 48_000, 8_000]),
)
def test_feeds_do_not_depend_on_how_the_samples_are_pushed(samples: int, cuts: list[int], rate: int) -> None:
    clip = sound(samples, seed=samples)[::-1].copy()  # its loudest sound comes last
    whole, chopped = (LiveAudio(MEL, *WINDOWS, 4, sample_rate=rate) for _ in range(2))
    assert_same(pushed(chopped, clip, cuts), pushed(whole, clip, []))
    assert whole.largest_difference == chopped.largest_difference


def test_a_window_goes_out_as_soon_as_its_last_frame_is_decided() -> None:
    clip = sound(3 * WINDOW_SAMPLES)
    live = LiveAudio(MEL, *WINDOWS)
    last_frame_ends = WINDOW_SAMPLES + MEL.n_fft // 2 - MEL.hop_length
    assert live.push(clip[: last_frame_ends - 1]) == [] and live.tokens == 0
    assert len(live.push(clip[last_frame_ends - 1 : last_frame_ends])) == 1
    assert live.tokens == 26
    assert len(live.push(clip[last_frame_ends:])) == 1 and len(live.finish()) == 1
    assert live.tokens == 78


@settings(max_examples=40, deadline=None)
@given(st.integers(WINDOW_SAMPLES, 150_000), st.integers(0, 2**16))
def test_the_difference_is_that_to_the_features_of_the_finished_clip(samples: int, seed: int) -> None:
    clip = sound(samples, seed)[::-1].copy()
    live = LiveAudio(MEL, *WINDOWS)
    found = pushed(live, clip, [])
    (features,) = log_mel([clip], MEL)
    frames = window_frames(*WINDOWS)
    windows = [features[:, start : start + frames] for start in range(0, features.shape[1], frames)]
    differences = []
    for call, window in zip(found, windows, strict=True):
        early = np.concatenate(list(call["chunks"]), axis=1)[:, : window.shape[1]]
        assert (early <= window).all()
        differences.append((window - early).max())
    assert live.largest_difference == pytest.approx(max(differences), abs=1e-6)


def test_the_difference_is_known_while_the_sound_goes_on() -> None:
    live = LiveAudio(MEL, *WINDOWS)
    assert live.largest_difference == 0
    live.push(np.zeros(WINDOW_SAMPLES + RATE, np.float32))
    assert live.largest_difference == 0
    live.push(np.full(RATE, 0.5, np.float32))
    assert live.largest_difference > 0.5


def test_samples_of_another_rate_equal_the_resampled_clip() -> None:
    clip = sound(150_000)
    features = log_mel([read_audio(clip, 44_100, RATE)], MEL)
    found = pushed(LiveAudio(MEL, *WINDOWS, sample_rate=44_100), clip, [0, 5, 40_000, 40_000])
    assert_same(found, list(audio_calls(features, *WINDOWS, max_windows=1)))


def test_bad_sound_is_refused_and_changes_nothing() -> None:
    clip = sound(50_000)
    live = LiveAudio(MEL, *WINDOWS)
    found = live.push(clip[:30_000])
    for bad, sentence in [
        (np.full(10, np.nan, np.float32), "NaN, infinite or far beyond"),
        (np.zeros((2, 16000), np.float32), "shape"),
        (np.zeros(5, np.int64), "holds int64"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            live.push(bad)
    found += live.push(clip[30_000:]) + live.finish()
    assert_same(found, list(audio_calls(log_mel([clip], MEL), *WINDOWS, max_windows=1)))
    for again in (live.finish, lambda: live.push(clip)):
        with pytest.raises(AntiphonError, match="was finished"):
            again()


def test_no_sound_at_all_is_refused() -> None:
    live = LiveAudio(MEL, *WINDOWS)
    assert live.push(np.zeros(0, np.float32)) == []
    with pytest.raises(AntiphonError, match="no samples"):
        live.finish()
