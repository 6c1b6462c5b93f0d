from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_options import AS_THE_BUNDLE, PixelOptions
from antiphon.runtime.frontend.vision.picture_size import VisionSettings, image_sizes, video_sizes

OPEN = VisionSettings(16, 2, 2, 1, 10**9, (0, 0, 0), (1, 1, 1))
"""Limits that never bite, so that only the options do."""

# From fetch_image of qwen-omni-utils 0.0.9 (v2_5/vision_process.py) with
# image_patch_size=16, run on these sizes.
IMAGES: list[tuple[tuple[int, int], dict[str, int], tuple[int, int]]] = [
    ((1000, 1500), {"max_pixels": 200000}, (352, 544)),
    ((40, 60), {"min_pixels": 50000}, (192, 288)),
    ((480, 640), {"resized_height": 100, "resized_width": 333}, (96, 320)),
    ((10, 300), {"min_pixels": 1000, "max_pixels": 90000}, (32, 288)),
    ((3000, 4000), {"max_pixels": 262144}, (416, 576)),
    ((720, 1280), {"min_pixels": 1}, (704, 1280)),
]
# From fetch_video there: frames, size, options, size of each frame.
VIDEOS: list[tuple[int, tuple[int, int], dict[str, int], tuple[int, int]]] = [
    (8, (720, 1280), {"max_pixels": 300000}, (384, 704)),
    (100, (720, 1280), {"total_pixels": 20_000_000}, (448, 832)),
    (4, (90, 160), {"min_pixels": 100000}, (256, 448)),
    (768, (1080, 1920), {"total_pixels": 50_000_000}, (256, 480)),
    (8, (480, 640), {"resized_height": 64, "resized_width": 640}, (64, 640)),
    (2, (720, 1280), {"min_pixels": 200000, "total_pixels": 200000}, (320, 608)),
    (8, (720, 1280), {"min_pixels": 3000, "max_pixels": 60000}, (160, 320)),
]


@pytest.mark.parametrize(("size", "options", "expected"), IMAGES)
def test_an_image_gets_the_size_of_the_reference(
    size: tuple[int, int], options: dict[str, int], expected: tuple[int, int]
) -> None:
    assert image_sizes(size, PixelOptions(**options), OPEN) == [expected]


@pytest.mark.parametrize(("frames", "size", "options", "expected"), VIDEOS)
def test_a_video_gets_the_size_of_the_reference(
    frames: int, size: tuple[int, int], options: dict[str, int], expected: tuple[int, int]
) -> None:
    assert video_sizes(size, frames, PixelOptions(**options), OPEN) == [expected]


def test_the_bundles_limits_come_after_the_options_as_the_processor_comes_after_the_tools() -> None:
    bundle = dataclasses.replace(OPEN, max_pixels=128 * 128)
    assert image_sizes((100, 100), PixelOptions(min_pixels=90000), bundle) == [(320, 320), (128, 128)]
    assert image_sizes((100, 100), PixelOptions(max_pixels=5000), bundle) == [(64, 64)]
    assert (
        image_sizes((100, 100), AS_THE_BUNDLE, bundle)
        == [(96, 96)]
        == video_sizes((100, 100), 4, AS_THE_BUNDLE, bundle)
    )


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("min_pixels is 131072, expected at most max_pixels, which is 60000", {"max_pixels": 60000}),
    ("min_pixels is 1e[+]08, expected at most 16,777,216", {"min_pixels": 10**8, "max_pixels": 10**9}),
    ("ratio below 200", {"resized_height": 32, "resized_width": 9000}),
]


@pytest.mark.parametrize(("sentence", "options"), REFUSED)
def test_sizes_that_no_picture_can_have_are_refused(sentence: str, options: dict[str, int]) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        video_sizes((720, 1280), 8, PixelOptions(**options), OPEN)
