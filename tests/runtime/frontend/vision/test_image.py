from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.vision.image import frame_patches, load_image, patch_grid, read_image
from antiphon.runtime.frontend.vision.picture_size import VisionSettings, smart_resize

PIL = pytest.importorskip("PIL.Image")
SETTINGS = VisionSettings(16, 2, 2, 56 * 56, 128 * 128, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(
        0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8
    )
    return np.asarray(PIL.fromarray(coarse).resize((width, height)))


@pytest.mark.parametrize("size", [(64, 96), (100, 37), (20, 21), (300, 500), (31, 400), (128, 128)], ids=str)
def test_patches_equal_the_reference_processor(size: tuple[int, int]) -> None:
    module = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    reference = module.Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        min_pixels=56 * 56,
        max_pixels=128 * 128,
        image_mean=[0.5, 0.4, 0.3],
        image_std=[0.5, 0.6, 0.7],
    )
    image = picture(*size)
    expected = reference(images=[PIL.fromarray(image)], return_tensors="np")
    resized = read_image(image, SETTINGS)
    patches, grid = frame_patches([resized], SETTINGS), patch_grid(1, resized.shape, SETTINGS)
    assert grid == tuple(expected["image_grid_thw"][0]) and patches.dtype == np.float32
    np.testing.assert_allclose(patches[0], expected["pixel_values"], rtol=0, atol=1e-6)


def test_patches_lie_in_merge_order() -> None:
    image = np.zeros((64, 96, 3), np.uint8)
    for row in range(4):
        for column in range(6):
            image[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16] = 10 * row + column
    settings = VisionSettings(16, 2, 2, 1, 10**6, (0, 0, 0), (1, 1, 1), rescale_factor=1.0)
    patches = frame_patches([read_image(image, settings)], settings)
    assert patches.shape == (1, 24, 3 * 2 * 16 * 16)
    assert (
        patches[0, :8, 0].tolist() == [0, 1, 10, 11, 2, 3, 12, 13] and np.ptp(patches[0], axis=1).max() == 0
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_mode_becomes_rgb_as_in_the_reference(mode: str) -> None:
    transforms = pytest.importorskip("transformers.image_transforms")
    image = PIL.fromarray(picture(32, 48))
    if "A" in mode:
        image.putalpha(PIL.fromarray(picture(32, 48, seed=1)[:, :, 0]))
    image = image.convert(mode)
    np.testing.assert_array_equal(
        np.asarray(load_image(image)), transforms.convert_to_rgb(image, return_numpy=True)
    )


def test_all_sources_give_the_same_image(tmp_path: Path) -> None:
    image = picture(40, 56)
    path = tmp_path / "a.png"
    PIL.fromarray(image).save(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    for source in (
        image,
        PIL.fromarray(image),
        path,
        str(path),
        f"file://{path}",
        f"data:image/png;base64,{encoded}",
        path.read_bytes(),
    ):
        np.testing.assert_array_equal(np.asarray(load_image(source)), image)


def test_a_photograph_is_turned_upright() -> None:
    image, buffer = PIL.fromarray(picture(40, 56)), io.BytesIO()
    exif = PIL.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    image.save(buffer, "JPEG", exif=exif)
    assert load_image(buffer.getvalue()).size == (40, 56)


SIZES = [
    (100, 100, (96, 96)),
    (16, 16, (64, 64)),
    (1000, 1000, (128, 128)),
    (2000, 20, (1280, 32)),
    (48, 80, (64, 64)),
]


@pytest.mark.parametrize(("height", "width", "expected"), SIZES)
def test_smart_resize_keeps_multiples_and_limits(height: int, width: int, expected: tuple[int, int]) -> None:
    assert smart_resize(height, width, 32, 56 * 56, 128 * 128) == expected


def test_bad_images_raise_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "a.png"
    text.write_text("no image at all")
    for source, sentence in [
        (text, "a.png cannot be read as image: its first bytes are of no format that is read; give PNG"),
        (np.zeros((3, 16, 16), np.uint8), r"uint8 \[3, 16, 16\]; expected uint8 \[height, width, 3\]"),
        (np.zeros((16, 16, 3), np.int32), "int32"),
        (np.zeros((0, 16, 3), np.uint8), "expected uint8"),
        (np.zeros((1, 300, 3), np.uint8), "ratio below 200"),
    ]:
        with pytest.raises(AntiphonError, match=sentence):
            read_image(source, SETTINGS)


def test_a_missing_pillow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(AntiphonError, match=r"needs the package PIL.*antiphon\[media\]"):
        load_image(np.zeros((8, 8, 3), np.uint8))
