from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.vision.image import load_image
from antiphon.runtime.frontend.vision.pixels import array_pixels

PIL = pytest.importorskip("PIL.Image")
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)
pytestmark = pytest.mark.filterwarnings("error")


def in_file(image: Any, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def loaded(source: Any) -> np.ndarray:
    return np.asarray(load_image(source))


def grey(shade: np.ndarray) -> np.ndarray:
    return np.repeat(shade[:, :, None], 3, axis=2)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "scale"), [("u1", 1), ("u2", 257), ("f2", 1 / 255), ("f4", 1 / 255), ("f8", 1 / 255)]
)
def test_arrays_of_every_depth_keep_their_shades(kind: str, scale: float, order: str) -> None:
    array = (COLOURS.astype(np.float64) * scale).astype(order + kind)
    np.testing.assert_array_equal(array_pixels(array), COLOURS)
    np.testing.assert_array_equal(loaded(array[:, :, 0]), grey(COLOURS[:, :, 0]))
    np.testing.assert_array_equal(loaded(array[:, :, :1]), grey(COLOURS[:, :, 0]))


def test_arrays_of_two_values_are_black_and_white() -> None:
    np.testing.assert_array_equal(array_pixels(RAMP > 127), grey(np.where(RAMP > 127, 255, 0)))


def test_what_is_transparent_in_an_array_shows_white() -> None:
    array = np.concatenate([COLOURS, np.where(RAMP > 127, 255, 0).astype(np.uint8)[:, :, None]], axis=2)
    np.testing.assert_array_equal(array_pixels(array), np.where((RAMP > 127)[:, :, None], COLOURS, 255))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_grey_files_of_16_bits_keep_their_shades(file_format: str) -> None:
    np.testing.assert_array_equal(
        loaded(in_file(PIL.fromarray(RAMP.astype(np.uint16) * 257), file_format)), grey(RAMP)
    )
    dark = RAMP.astype(np.uint16)  # 16 bits, and almost black
    assert loaded(in_file(PIL.fromarray(dark), file_format)).max() == 1


def test_images_in_memory_of_more_than_8_bits_keep_their_shades() -> None:
    deep = RAMP.astype(np.uint16) * 257
    for image in (
        PIL.fromarray(deep),
        PIL.fromarray(deep.astype(">u2")),
        PIL.fromarray(deep.astype(np.int32)),
        PIL.fromarray(RAMP.astype(np.float32) / 255),
    ):
        assert image.mode in ("I;16", "I;16B", "I", "F")
        np.testing.assert_array_equal(loaded(image), grey(RAMP))


def test_a_tiff_of_floats_keeps_its_shades() -> None:
    np.testing.assert_array_equal(
        loaded(in_file(PIL.fromarray(RAMP.astype(np.float32) / 255), "TIFF")), grey(RAMP)
    )


@pytest.mark.parametrize(("tag", "value", "expected"), [(262, 0, 255 - RAMP), (258, 12, RAMP)])
def test_a_tiff_says_what_is_white(tag: int, value: int, expected: np.ndarray) -> None:
    image = PIL.open(
        io.BytesIO(
            in_file(
                PIL.fromarray(
                    RAMP.astype(np.uint16) * (257 if tag == 262 else 16) + (tag == 258) * (RAMP >> 4)
                ),
                "TIFF",
            )
        )
    )
    image.tag_v2[tag] = value if tag == 262 else (value,)
    np.testing.assert_array_equal(loaded(image), grey(expected))


def test_a_turned_image_of_16_bits_keeps_its_shades() -> None:
    exif = PIL.Exif()
    exif[0x0112] = 3  # upside down
    np.testing.assert_array_equal(
        loaded(in_file(PIL.fromarray(RAMP.astype(np.uint16) * 257), "PNG", exif=exif)), grey(RAMP[::-1, ::-1])
    )


def test_a_transparent_shade_of_16_bits_shows_white() -> None:
    found = loaded(in_file(PIL.fromarray(RAMP.astype(np.uint16) * 257), "PNG", transparency=5 * 257))
    np.testing.assert_array_equal(found, grey(np.where(RAMP == 5, 255, RAMP)))


def test_premultiplied_modes_show_their_colour() -> None:
    half = PIL.new("RGBA", (4, 4), (200, 100, 50, 128))
    assert np.abs(loaded(half.convert("RGBa")).astype(int) - loaded(half)).max() <= 2
    assert (
        np.abs(
            loaded(PIL.new("LA", (4, 4), (200, 128)).convert("La")).astype(int)
            - loaded(PIL.new("LA", (4, 4), (200, 128)))
        ).max()
        <= 2
    )


REFUSED: list[tuple[str, Any]] = [
    (r"holds floats from 0 to 255; expected 0 .. 1, or uint8 or uint16", RAMP.astype(np.float32)),
    ("holds floats from -1 to 1", np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)),
    ("holds floats from nan to nan", np.full((4, 4), np.nan, np.float32)),
    (r"is int64 \[16, 16, 1\]; expected uint8 \[height, width, 3\], grey", RAMP.astype(np.int64)),
    (r"is uint8 \[16, 16, 2\]", COLOURS[:, :, :2]),
    (r"is uint8 \[3, 16, 16\]", COLOURS.transpose(2, 0, 1)),
    (r"is uint8 \[\]", np.array(5, np.uint8)),
    ("is complex64", np.zeros((4, 4), np.complex64)),
    ("has masked pixels", np.ma.masked_array(RAMP, RAMP > 5)),
]


@pytest.mark.parametrize(("sentence", "array"), REFUSED, ids=[sentence for sentence, _ in REFUSED])
def test_arrays_that_are_no_picture_are_refused_by_name(sentence: str, array: np.ndarray) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        array_pixels(array)


@pytest.mark.parametrize(
    "pixels", [RAMP.astype(np.int32), RAMP.astype(np.int32) - 9, RAMP.astype(np.int32) * 70000]
)
def test_integers_of_32_bits_are_refused_by_their_range(pixels: np.ndarray) -> None:
    with pytest.raises(AntiphonError, match="holds 32-bit integers from .*; expected 16 bits, 0 to 65535"):
        load_image(PIL.fromarray(pixels))


def test_floats_beyond_one_are_refused_by_their_range() -> None:
    with pytest.raises(AntiphonError, match="holds floats from 0 to 255"):
        load_image(in_file(PIL.fromarray(RAMP.astype(np.float32)), "TIFF"))
