from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_options import FrameOptions, PixelOptions, Span
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.frontend.prompt.content_parts import VideoPart
from antiphon.runtime.frontend.vision import video
from antiphon.runtime.frontend.vision.image import frame_patches
from antiphon.runtime.frontend.vision.picture_size import VisionSettings
from antiphon.runtime.frontend.vision.video import Video, frames_shown, read_video

pytest.importorskip("PIL.Image")
RAW = VisionSettings(16, 2, 2, 1, 10**6, (0, 0, 0), (1, 1, 1), rescale_factor=1.0)


def grey_film(
    path: Path,
    frames: int = 20,
    rate: int = 10,
    size: int = 64,
    sound: bool = False,
    channels: str = "stereo",
) -> Path:
    """A film whose frame k is of the even grey 10 + 10 * k, with a tone as long as it is."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=rate, options={"qscale": "1"})
        stream.width = stream.height = size
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 1
        track = output.add_stream("aac", rate=48000, layout=channels) if sound else None
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(
                np.full((size, size, 3), 10 + 10 * index, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = index, Fraction(1, rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track is not None:
            time = np.arange(48000 * frames // rate) / 48000
            columns = 2 if channels == "stereo" else 1
            tone = np.repeat((np.sin(2 * np.pi * 440 * time) * 12000).astype(np.int16), columns)[None]
            sounding = av.AudioFrame.from_ndarray(tone, format="s16", layout=channels)
            sounding.sample_rate = 48000
            for packet in (*track.encode(sounding), *track.encode(None)):
                output.mux(packet)
    return path


def greys(found: Video) -> list[int]:
    """The number of the film's frame that each frame shows."""
    return [round((found.frames[index].mean() - 10) / 10) for index in range(len(found.frames))]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (2.0, [0, 5, 10, 15]),
        (1.0, [0, 10]),
        (3.0, [0, 3, 6, 10, 13, 16]),
        (10.0, [*range(20)]),
        (20.0, [k // 2 for k in range(40)]),
    ],
)
def test_a_file_is_sampled_by_time(tmp_path: Path, rate: float, expected: list[int]) -> None:
    path = grey_film(tmp_path / "a.mp4")
    found = read_video(VideoPart(str(path)), RAW, rate, use_audio=False, audio_rate=16000)
    assert greys(found) == expected and (found.frames.height, found.frames.width) == (64, 64)
    assert found.rate == rate and found.audio is None


def test_a_video_shorter_than_a_temporal_patch_is_sampled_more_densely(tmp_path: Path) -> None:
    path = grey_film(tmp_path / "a.mp4", frames=4)
    found = read_video(VideoPart(path), RAW, 2.0, use_audio=False, audio_rate=16000)
    assert greys(found) == [0, 2]


def test_a_video_of_one_frame_repeats_it(tmp_path: Path) -> None:
    found = read_video(
        VideoPart(grey_film(tmp_path / "a.mp4", frames=1)), RAW, 2.0, use_audio=False, audio_rate=16000
    )
    assert greys(found) == [0, 0]


def test_a_long_video_is_sampled_more_sparsely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MOST_FRAMES", 4)
    found = read_video(VideoPart(grey_film(tmp_path / "a.mp4")), RAW, 10.0, use_audio=False, audio_rate=16000)
    assert greys(found) == [0, 5, 10, 15] and found.rate == pytest.approx(2.0)


@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_the_audio_track_is_read_when_asked(tmp_path: Path, channels: str) -> None:
    path = grey_film(tmp_path / "a.mp4", sound=True, channels=channels)
    found = read_video(VideoPart(path), RAW, 2.0, use_audio=True, audio_rate=16000)
    assert (
        found.audio is not None and found.audio.dtype == np.float32 and abs(len(found.audio) - 32000) < 1200
    )
    spectrum = np.abs(np.fft.rfft(found.audio[4000:20000]))
    assert np.argmax(spectrum) == 440


def test_a_silent_video_has_no_audio(tmp_path: Path) -> None:
    assert (
        read_video(VideoPart(grey_film(tmp_path / "a.mkv")), RAW, 2.0, use_audio=True, audio_rate=16000).audio
        is None
    )


def test_an_array_is_taken_frame_by_frame_at_its_own_rate() -> None:
    frames = np.stack([np.full((32, 64, 3), 10 + 10 * index, np.uint8) for index in range(5)])
    found = read_video(VideoPart(frames, fps=4.0), RAW, 2.0, use_audio=False, audio_rate=16000)
    assert (found.frames.height, found.frames.width) == (32, 64) and found.rate == 4.0
    assert greys(found) == [0, 1, 2, 3, 4]


def seen(part: VideoPart, rate: float = 2.0) -> Video:
    return read_video(part, RAW, rate, use_audio=False, audio_rate=16000)


def test_a_part_has_its_own_rate(tmp_path: Path) -> None:
    found = seen(VideoPart(grey_film(tmp_path / "a.mp4"), fps=1.0), rate=2.0)
    assert greys(found) == [0, 10] and found.rate == 1.0 and found.times.tolist() == [0, 1]


# Frames and their rate (sample_fps) as of fetch_video of qwen-omni-utils 0.0.9 on a film of
# 20 frames at 10 a second.
CHOICES: list[tuple[FrameOptions, Span, float, list[int], float]] = [
    (FrameOptions(nframes=4), Span(), 2.0, [0, 6, 13, 19], 2.0),
    (FrameOptions(nframes=6), Span(), 2.0, [0, 4, 8, 11, 15, 19], 3.0),
    (FrameOptions(max_frames=2), Span(), 2.0, [0, 19], 1.0),
    (FrameOptions(min_frames=8), Span(), 2.0, [0, 3, 5, 8, 11, 14, 16, 19], 4.0),
    (FrameOptions(max_frames=6), Span(), 10.0, [0, 4, 8, 11, 15, 19], 3.0),
    (FrameOptions(nframes=4), Span(0.5, 1.4), 2.0, [5, 8, 11, 14], 4.0),
    (FrameOptions(nframes=2), Span(1.0, None), 2.0, [10, 19], 2.0),
]


@pytest.mark.parametrize(("count", "span", "rate", "expected", "found_rate"), CHOICES)
def test_frames_are_counted_and_chosen_as_by_the_reference(
    tmp_path: Path, count: FrameOptions, span: Span, rate: float, expected: list[int], found_rate: float
) -> None:
    found = seen(VideoPart(grey_film(tmp_path / "a.mp4"), count=count, span=span), rate)
    assert greys(found) == expected and found.rate == pytest.approx(found_rate)
    assert found.times == pytest.approx(np.array(expected) / 10)


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(0.5, None), [5, 10, 15]),
        (Span(0.0, 0.9), [0, 5]),
        (Span(0.46, 1.52), [5, 10, 15]),
        (Span(1.55, 99.0), [16, 18]),
    ],
)
def test_a_span_is_sampled_by_time(tmp_path: Path, span: Span, expected: list[int]) -> None:
    found = seen(VideoPart(grey_film(tmp_path / "a.mp4"), span=span))
    assert greys(found) == expected and found.times == pytest.approx(np.array(expected) / 10)


def test_nothing_behind_the_end_of_a_span_is_decoded() -> None:
    frames = (SimpleNamespace(time=number / 10) for number in range(100))
    assert len(list(frames_shown(frames, iter([0.0, 0.5]), 0.1))) == 2 and next(frames).time < 1


def test_a_span_cuts_the_audio_track_too(tmp_path: Path) -> None:
    path = grey_film(tmp_path / "a.mp4", sound=True)
    whole, part = (
        read_video(VideoPart(path, span=span), RAW, 2.0, True, 16000).audio
        for span in (Span(), Span(0.5, 1.5))
    )
    assert isinstance(whole, np.ndarray) and isinstance(part, np.ndarray) and len(part) == 16000
    assert np.abs(part[100:-100] - whole[8100:23900]).max() < 1e-3


def test_pictures_of_a_video_get_the_size_that_is_asked_for(tmp_path: Path) -> None:
    found = seen(
        VideoPart(grey_film(tmp_path / "a.mp4"), pixels=PixelOptions(resized_height=96, resized_width=160))
    )
    assert (found.frames.height, found.frames.width) == (96, 160)


def test_a_list_of_images_is_a_video(tmp_path: Path) -> None:
    shades = [np.full((32, 64, 3), 10 + 10 * index, np.uint8) for index in range(3)]
    image = pytest.importorskip("PIL.Image").fromarray(shades[0])
    image.save(tmp_path / "a.png")
    for first in (image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        found = seen(VideoPart([first, *shades[1:]], fps=4.0))
        assert greys(found) == [0, 1, 2] and found.rate == 4.0 and found.times.tolist() == [0, 0.25, 0.5]


def test_patches_follow_the_reference_layout() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), np.uint8)
    settings = VisionSettings(16, 2, 2, 1, 10**6, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))
    found = read_video(VideoPart(frames), settings, 2.0, use_audio=False, audio_rate=16000)
    patches = frame_patches([found.frames[index] for index in range(3)], settings)
    pixels = (np.concatenate([frames, frames[-1:]]) / 255 - settings.image_mean) / settings.image_std
    # Written out from Qwen2VLVideoProcessor.patchify: which pixel stands at [time, patch, dim].
    for time, patch, dim in np.random.default_rng(1).integers(0, (2, 24, 1536), (300, 3)):
        block, inside = divmod(patch, 4)
        row, column = block // 3 * 2 + inside // 2, block % 3 * 2 + inside % 2
        channel, rest = divmod(dim, 2 * 256)
        frame, (y, x) = time * 2 + rest // 256, divmod(rest % 256, 16)
        assert patches[time, patch, dim] == pytest.approx(
            pixels[frame, row * 16 + y, column * 16 + x, channel], abs=1e-5
        )


def test_frames_are_shown_until_the_next_when_the_rate_varies() -> None:
    frames = [SimpleNamespace(time=time) for time in (5.0, 5.1, 6.0, 6.2)]
    shown = [frame.time for frame in frames_shown(frames, iter(np.arange(99) / 2), 0.1)]
    assert shown == [5.0, 5.1, 6.0]


def test_frames_without_time_stamps_follow_each_other_at_the_average_rate() -> None:
    frames = [SimpleNamespace(time=None, number=number) for number in range(6)]
    assert [frame.number for frame in frames_shown(frames, iter(np.arange(99) / 2), 0.25)] == [0, 2, 4]


def test_bad_videos_raise_one_sentence(tmp_path: Path) -> None:
    text, sound = tmp_path / "a.mp4", tmp_path / "a.wav"
    text.write_text("no video at all")
    pytest.importorskip("soundfile").write(sound, np.zeros(1600), 16000)
    for part, sentence in [
        (VideoPart(text), "cannot be read as video"),
        (VideoPart(sound), "cannot be read as video: it is WAV; give MP4"),
        (VideoPart(np.zeros((4, 4, 3), np.uint8)), "expected uint8"),
        (VideoPart(np.zeros((2, 4, 4, 3), np.int32)), "expected uint8"),
        (
            VideoPart([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)]),
            "Frame 1 of the video is 64 x 32 pixels and the first 32 x 32",
        ),
        (VideoPart(np.zeros((2, 32, 32, 3), np.uint8), use_audio=True), "frames has no audio track"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            read_video(part, RAW, 2.0, use_audio=bool(part.use_audio), audio_rate=16000)


def test_a_video_beyond_the_policy_is_refused_by_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = grey_film(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "decoded", lambda *_: pytest.fail("decoded"))
    for policy, most_tokens, sentence in [
        (MediaPolicy(max_frames=19), None, "The video has 20 frames or more, expected at most 19"),
        (MediaPolicy(max_seconds=1.5), None, "The video is 2.0 s long, expected at most 1.5 s"),
        (MediaPolicy(max_pixels=64 * 63), None, "a size that cannot be read, or of more than 4,032 pixels"),
        (
            MediaPolicy(),
            7,
            "The video has 8 tokens or more, the model's context has room for 7; cut it or lower video_fps",
        ),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            read_video(VideoPart(path), RAW, 2.0, False, 16000, policy, most_tokens)


def test_a_video_whose_header_says_too_little_stops_where_it_gets_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = grey_film(tmp_path / "a.mp4")
    with pytest.raises(AntiphonError, match="The video has 11 frames or more"):
        list(video._bounded([SimpleNamespace(width=1, height=1)] * 20, MediaPolicy(max_frames=10)))
    checked = iter([None])  # what the header says passes
    monkeypatch.setattr(video, "CHECKED_EVERY", 1)
    real = video._check_room
    monkeypatch.setattr(
        video, "_check_room", lambda *arguments: real(*arguments) if next(checked, True) else None
    )
    with pytest.raises(
        AntiphonError, match="The video has 4 tokens or more, the model's context has room for 3"
    ):
        read_video(VideoPart(path), RAW, 2.0, False, 16000, MediaPolicy(), 3)


def test_an_array_beyond_the_policy_is_refused() -> None:
    frames = np.zeros((4, 64, 64, 3), np.uint8)
    for policy, most_tokens, sentence in [
        (MediaPolicy(max_frames=3), None, "The video has 4 frames"),
        (MediaPolicy(max_pixels=100), None, "The video is 64 x 64 pixels"),
        (MediaPolicy(), 7, "The video has 8 tokens or more"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            read_video(VideoPart(frames), RAW, 2.0, False, 16000, policy, most_tokens)
