from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_options import (
    AS_THE_BUNDLE,
    BY_RATE,
    FrameOptions,
    PixelOptions,
    Span,
)
from antiphon.runtime.frontend.prompt.content_parts import (
    AudioPart,
    ImagePart,
    TextPart,
    VideoPart,
    parse_part,
)

SAMPLES = np.zeros(8, np.float32)
FRAMES = np.zeros((2, 4, 4, 3), np.uint8)
PCM = np.array([1, -2, 300, -32768], np.int16)
PCM64 = base64.b64encode(PCM.astype("<i2").tobytes()).decode()
WAV64 = base64.b64encode(b"RIFF\x24\0\0\0WAVEfmt ").decode()


def parse(part: Any) -> Any:
    return parse_part(part, "part")


TEXTS = [
    "hi",
    {"type": "text", "text": "hi"},
    {"text": "hi"},
    {"type": "text", "text": "hi", "image": None, "cache_control": {"type": "ephemeral"}},
    {"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}},
    {"type": "output_text", "text": "hi", "annotations": [], "logprobs": []},
    {"type": "refusal", "refusal": "hi"},
    {"type": "input_audio", "audio": None, "transcript": "hi"},
    {"type": "output_audio", "transcript": "hi"},
]


@pytest.mark.parametrize("part", TEXTS, ids=str)
def test_text_of_every_client_is_read(part: Any) -> None:
    found = parse(part)
    assert isinstance(found, TextPart) and found.text == "hi"


AUDIO = [
    {"type": "input_audio", "input_audio": {"data": "a.wav", "format": "wav"}},
    {"type": "input_audio", "input_audio": {"data": "a.wav", "format": "audio/x-wav"}, "uuid": "1"},
    {"type": "input_audio", "input_audio": "a.wav"},
    {"type": "audio_url", "audio_url": {"url": "a.wav"}},
    {"type": "audio_url", "audio_url": "a.wav"},
    {"type": "audio", "audio_url": "a.wav"},
    {"type": "audio", "audio_url": {"url": "a.wav"}},
    {"type": "audio", "audio": "a.wav"},
    {"type": "audio", "path": "a.wav"},
    {"type": "audio", "url": "a.wav"},
    {"audio": "a.wav"},
    {"type": "audio", "audio": "a.wav", "text": None},
    {"type": "input_audio", "audio": "a.wav"},
]


@pytest.mark.parametrize("part", AUDIO, ids=str)
def test_audio_of_every_client_is_read(part: dict[str, Any]) -> None:
    found = parse(part)
    assert isinstance(found, AudioPart) and found.source == "a.wav" and found.span == Span()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": SAMPLES, "format": "wav", "sample_rate": 8000}},
        {"type": "input_audio", "input_audio": {"data": SAMPLES, "sampling_rate": np.int64(8000)}},
        {"type": "audio", "audio": SAMPLES, "sample_rate": 8000},
        {"type": "audio", "audio": (SAMPLES, 8000)},
        {"type": "audio", "audio": (8000, SAMPLES)},
        {"type": "audio", "audio": {"path": "a.wav", "array": SAMPLES, "sampling_rate": 8000}},
    ],
    ids=range(6),
)
def test_arrays_of_sound_have_their_rate_beside_them(part: dict[str, Any]) -> None:
    found = parse(part)
    assert found.source is SAMPLES and found.sample_rate == 8000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "audio": PCM64},
        {"type": "input_audio", "audio": PCM64, "transcript": "as it was heard"},
        {"type": "input_audio", "input_audio": {"data": PCM64, "format": "pcm16"}},
        {
            "type": "input_audio",
            "input_audio": {
                "data": f"data:audio/pcm;base64,{PCM64}",
                "format": {"type": "audio/pcm", "rate": 24000},
            },
        },
        {"type": "audio", "audio": PCM.tobytes(), "format": "pcm_s16le"},
    ],
    ids=range(5),
)
def test_sound_without_a_header_is_pcm16_at_24_khz(part: dict[str, Any]) -> None:
    found = parse(part)
    assert found.sample_rate == 24000 and found.source.dtype == np.int16
    np.testing.assert_array_equal(found.source, PCM)


def test_a_realtime_item_may_hold_a_file_and_another_rate() -> None:
    assert parse({"type": "input_audio", "audio": WAV64}).source == WAV64
    assert parse({"type": "input_audio", "audio": PCM64, "sample_rate": 48000}).sample_rate == 48000


IMAGES = [
    {"type": "image_url", "image_url": {"url": "a.png"}},
    {"type": "image_url", "image_url": {"url": "a.png", "detail": "auto"}},
    {"type": "image_url", "image_url": {"url": "a.png", "detail": "high"}},
    {"type": "image_url", "image_url": "a.png"},
    {"type": "input_image", "image_url": "a.png", "detail": "original", "file_id": None},
    {"type": "image", "image": "a.png"},
    {"type": "image", "image": {"path": None, "bytes": "a.png"}},
    {"type": "image", "path": "a.png"},
    {"type": "image", "base64": "a.png"},
    {"type": "image_pil", "image_pil": "a.png"},
    {"image_url": "a.png"},
]


@pytest.mark.parametrize("part", IMAGES, ids=str)
def test_images_of_every_client_are_read(part: dict[str, Any]) -> None:
    found = parse(part)
    assert isinstance(found, ImagePart) and found.source == "a.png" and found.pixels == AS_THE_BUNDLE


def test_options_of_images_are_read() -> None:
    part = {
        "type": "image_url",
        "image_url": {"url": "a.png", "min_pixels": 100},
        "max_pixels": np.int32(900),
    }
    assert parse(part).pixels == PixelOptions(min_pixels=100, max_pixels=900)
    assert parse(
        {"type": "image", "image": "a", "resized_height": 64, "resized_width": 96}
    ).pixels == PixelOptions(resized_height=64, resized_width=96)
    assert parse(
        {"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}
    ).pixels == PixelOptions(max_pixels=262144)


def test_options_of_videos_are_read_in_the_part_and_in_its_object() -> None:
    found = parse(
        {
            "type": "video_url",
            "video_url": {"url": "a.mp4", "use_audio": True, "fps": 4, "max_frames": 8},
            "video_start": 1,
            "video_end": 2.5,
        }
    )
    assert isinstance(found, VideoPart) and (found.source, found.use_audio, found.fps) == ("a.mp4", True, 4.0)
    assert (
        found.count == FrameOptions(max_frames=8)
        and found.span == Span(1.0, 2.5)
        and found.pixels == AS_THE_BUNDLE
    )
    found = parse(
        {
            "type": "video",
            "video": "a.mp4",
            "nframes": 6,
            "total_pixels": 9000,
            "use_audio_in_video": np.bool_(False),
        }
    )
    assert (
        found.count == FrameOptions(nframes=6)
        and found.pixels == PixelOptions(total_pixels=9000)
        and found.use_audio is False
    )


def test_frames_have_a_rate() -> None:
    found = parse({"type": "video_url", "video_url": FRAMES, "fps": np.float32(1.5)})
    assert found.source is FRAMES and found.use_audio is None and found.fps == 1.5 and found.count == BY_RATE
    found = parse({"type": "video", "video": [Path("a.png"), "b.png"], "sample_fps": 3})
    assert found.source == [Path("a.png"), "b.png"] and found.fps == 3.0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "one", [np.float16(2), np.float32(2), np.float64(2), np.int8(2), np.uint64(2), 2, 2.0]
)
def test_scalars_of_numpy_are_numbers(one: Any) -> None:
    found = parse({"type": "video", "video": "a", "fps": one, "video_end": one})
    assert (type(found.fps), found.fps, found.span.end) == (float, 2.0, 2.0)


REFUSED: list[tuple[str, Any]] = [
    ("part is an int; expected an object", 3),
    ("has the type 'smell'; expected one of text, input_text", {"type": "smell"}),
    (r"type 'vidio_url' \(did you mean video_url\?\)", {"type": "vidio_url"}),
    ("has the type a list of 1; expected one of", {"type": ["text"]}),
    ("has the type None", {"audio": "a", "image": "b"}),
    (
        "of type file, which is not taken: send the sound, image or video itself",
        {"type": "file", "file": {"file_id": "x"}},
    ),
    ("of type input_file, which", {"type": "input_file", "file_url": "x"}),
    (
        "of type image_embeds, which is not taken: embeddings made elsewhere",
        {"type": "image_embeds", "image_embeds": "x"},
    ),
    (
        "has the key file_id, which is not taken: files are not stored here",
        {"type": "input_image", "file_id": "x"},
    ),
    (
        "has the key mm_processor_kwargs, which is not taken: put its options",
        {"type": "image", "image": "a", "mm_processor_kwargs": {"fps": 1}},
    ),
    ("has the key source, which is not taken", {"type": "image", "source": {"type": "base64", "data": "x"}}),
    ("part.text is a NoneType; expected text", {"type": "text"}),
    (
        r"has the key 'colour', which is not known there; its options are none",
        {"type": "text", "text": "x", "colour": 1},
    ),
    (
        r"has the key 'nframe', which is not known there \(did you mean nframes\?\); its options are fps",
        {"type": "video", "video": "a", "nframe": 8},
    ),
    (
        r"part.video_url has the key 'FPS'.*options are fps",
        {"type": "video_url", "video_url": {"url": "a", "FPS": 1}},
    ),
    (r"has the key 'fps'.*options are detail", {"type": "image", "image": "a", "fps": 1}),
    (r"has the key 3, which is not known", {"type": "image", "image": "a", 3: 1}),
    (
        "of type input_audio holds no media; expected it under 'data'",
        {"type": "input_audio", "input_audio": {"format": "wav"}},
    ),
    ("of type image_url holds no media; expected it under 'url'", {"type": "image_url", "uuid": "cached"}),
    ("holds its image twice, under image and url", {"type": "image", "image": "a", "url": "b"}),
    ("has fps twice", {"type": "video_url", "video_url": {"url": "a", "fps": 1}, "fps": 2}),
    ("has both fps and sample_fps", {"type": "video", "video": [FRAMES[0]], "fps": 1, "sample_fps": 2}),
    ("sample_fps is the rate of frames given as a list", {"type": "video", "video": "a", "sample_fps": 2}),
    (
        "has both use_audio and use_audio_in_video",
        {"type": "video", "video": "a", "use_audio": True, "use_audio_in_video": True},
    ),
    ("video without frames", {"type": "video", "video": []}),
    ("nframes is for video files", {"type": "video", "video": [FRAMES[0]], "nframes": 2}),
    ("video_start is for video files", {"type": "video", "video": FRAMES, "video_start": 0.5}),
    (
        "sample_rate is 'fast', expected an integer from 1,000 to 768,000 samples a second",
        {"type": "audio", "audio": SAMPLES, "sample_rate": "fast"},
    ),
    ("sample_rate is 0", {"type": "audio", "audio": SAMPLES, "sample_rate": 0}),
    (
        "both sample_rate and sampling_rate",
        {"type": "audio", "audio": SAMPLES, "sample_rate": 8000, "sampling_rate": 8000},
    ),
    ("both in its pair and as sample_rate", {"type": "audio", "audio": (SAMPLES, 8000), "sample_rate": 8000}),
    (
        "use_audio is 'yes'; expected true or false",
        {"type": "video_url", "video_url": {"url": "a", "use_audio": "yes"}},
    ),
    (
        "format is 'wma', expected one of wav, mp3",
        {"type": "input_audio", "input_audio": {"data": "a", "format": "wma"}},
    ),
    (
        "format has the rate 16000, expected 24000",
        {"type": "input_audio", "audio": PCM64, "format": {"type": "audio/pcm", "rate": 16000}},
    ),
    ("16-bit sound of 3 bytes", {"type": "input_audio", "audio": base64.b64encode(b"abc").decode()}),
    (
        "of the format pcm16, expected base64; found 'a.wav'",
        {"type": "audio", "audio": "a.wav", "format": "pcm16"},
    ),
    (
        "of the format pcmu, expected base64 or bytes; found a list of 1",
        {"type": "audio", "audio": [0.5], "format": "g711_ulaw"},
    ),
]


@pytest.mark.parametrize(("sentence", "part"), REFUSED, ids=[sentence for sentence, _ in REFUSED])
def test_what_is_not_taken_is_refused_by_its_name(sentence: str, part: Any) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        parse(part)


OUT_OF_RANGE = [
    *[("fps", value) for value in (0, -1, 1e-300, 1e9, float("nan"), float("inf"), True, "2", 10**400)],
    *[("nframes", value) for value in (0, 1, 2.0, True, 2**40)],
    *[("min_frames", value) for value in (0, -4, "4", 10**400)],
    *[("max_frames", value) for value in (0, 1, 4.5)],
    ("min_pixels", 0),
    ("max_pixels", 3.5),
    ("total_pixels", np.float32(3)),
    *[("video_start", value) for value in (-1, "0", float("nan"), 1e12)],
    ("video_end", 0),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE, ids=lambda value: str(value)[:20])
def test_options_of_videos_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(AntiphonError, match=f"{name} is .*expected"):
        parse({"type": "video", "video": "a", name: value})


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("has resized_height without resized_width", {"resized_height": 64}),
        ("min_pixels is 9, expected at most max_pixels, which is 8", {"min_pixels": 9, "max_pixels": 8}),
        ("both resized_height and max_pixels", {"resized_height": 64, "resized_width": 64, "max_pixels": 8}),
        ("both nframes and fps", {"nframes": 4, "fps": 2}),
        ("both nframes and max_frames", {"nframes": 4, "max_frames": 6}),
        ("min_frames is 9, expected at most max_frames, which is 8", {"min_frames": 9, "max_frames": 8}),
        (
            "video_end is 1.0, expected a time after video_start, which is 2.0",
            {"video_start": 2, "video_end": 1},
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(sentence: str, options: dict[str, Any]) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        parse({"type": "video", "video": "a", **options})


def test_detail_is_one_of_four_and_stands_alone() -> None:
    with pytest.raises(AntiphonError, match="detail is 'full', expected one of auto, low, high, original"):
        parse({"type": "image_url", "image_url": {"url": "a", "detail": "full"}})
    with pytest.raises(AntiphonError, match="both detail and max_pixels"):
        parse({"type": "image_url", "image_url": {"url": "a", "detail": "low"}, "max_pixels": 9})


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(
        AntiphonError, match=r"part.text is not valid Unicode: character 0 is '\\ud83d'; send UTF-8"
    ):
        parse({"type": "text", "text": "\ud83d hi"})
