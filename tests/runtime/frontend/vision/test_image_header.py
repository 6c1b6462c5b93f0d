from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.media.media_formats import require_format
from antiphon.runtime.frontend.media.media_policy import MediaPolicy
from antiphon.runtime.frontend.vision.image import image_size, load_image
from antiphon.runtime.frontend.vision.image_header import ImageHeader, read_header

from .. import absurd_media as absurd

PIL = pytest.importorskip("PIL.Image")
WAYS = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WebP", {}),
    ("WebP", {"lossless": True}),
    ("GIF", {}),
    ("BMP", {}),
    ("TIFF", {}),
]
WAYS += [
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"big_tiff": True}),
    ("JPEG", {"comment": b"x" * 60000}),
]


@settings(deadline=None)
@given(st.sampled_from(WAYS), st.integers(1, 300), st.integers(1, 300))
def test_the_header_tells_the_size_that_pillow_finds(way: tuple[str, dict], width: int, height: int) -> None:
    buffer = io.BytesIO()
    PIL.new("RGB", (width, height)).save(buffer, way[0], **way[1])
    data = buffer.getvalue()
    found = read_header(data, require_format(data, "image", "it"))
    assert found is not None and found[:3] == (width, height, 1) and image_size(data) == (width, height)


def test_the_frames_of_a_webp_animation_are_counted() -> None:
    buffer, frames = io.BytesIO(), [PIL.new("RGB", (20, 10), (shade, 0, 0)) for shade in (0, 99, 200)]
    frames[0].save(buffer, "WebP", save_all=True, append_images=frames[1:])
    assert read_header(buffer.getvalue(), require_format(buffer.getvalue(), "image", "it")) == ImageHeader(
        20, 10, 3
    )


@given(
    st.sampled_from([absurd.png, absurd.jpeg, absurd.gif, absurd.bmp, absurd.webp, absurd.tiff]), st.data()
)
def test_a_header_that_is_cut_short_is_broken(make: object, data: st.DataObject) -> None:
    whole = make(50, 40)  # type: ignore[operator]
    cut = whole[: data.draw(st.integers(8, len(whole)))]
    if (found := read_header(cut, require_format(whole, "image", "it"))) is not None:
        assert found[:2] == (50, 40)


@pytest.mark.filterwarnings("error")
def test_a_picture_of_100_megapixels_is_read_without_a_warning() -> None:
    buffer = io.BytesIO()
    PIL.new("1", (10_000, 10_000)).save(buffer, "PNG")
    assert image_size(buffer.getvalue()) == (10_000, 10_000)
    with pytest.raises(AntiphonError, match="10000 x 10000 pixels, expected at most 50,000,000"):
        load_image(buffer.getvalue(), MediaPolicy.for_server())
    assert load_image(buffer.getvalue()).size == (10_000, 10_000)
