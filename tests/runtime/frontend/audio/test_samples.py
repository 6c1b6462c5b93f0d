from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.frontend.audio.samples import columns, whole_array

pytestmark = pytest.mark.filterwarnings("error")
CLIP = np.sin(np.arange(400) * 0.1).astype(np.float32) / 2
STEREO = np.stack([CLIP, -CLIP], axis=1)


def read(samples: np.ndarray) -> np.ndarray:
    return columns(whole_array(samples))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "scale", "offset"),
    [
        ("i1", 2**7, 0),
        ("u1", 2**7, 128),
        ("i2", 2**15, 0),
        ("i4", 2**31, 0),
        ("f2", 1, 0),
        ("f4", 1, 0),
        ("f8", 1, 0),
    ],
)
def test_every_type_and_byte_order_becomes_float32_of_full_scale_1(
    kind: str, scale: int, offset: int, order: str
) -> None:
    given_ = (CLIP.astype(np.float64) * scale + offset).round(0 if scale > 1 else 9).astype(order + kind)
    found = read(given_)
    assert found.shape == (400, 1) and found.dtype == np.float32 and found.dtype.isnative
    np.testing.assert_allclose(
        found[:, 0], CLIP, rtol=0, atol=max(1e-3 if kind == "f2" else 0, 0.6 / scale if scale > 1 else 1e-7)
    )


def test_long_doubles_are_floats() -> None:
    np.testing.assert_array_equal(read(CLIP.astype(np.longdouble))[:, 0], CLIP)


@given(st.integers(1, 64), st.integers(65, 300), st.booleans())
def test_the_shorter_axis_is_that_of_the_channels(channels: int, length: int, turned: bool) -> None:
    array = np.arange(channels * length, dtype=np.float32).reshape(length, channels)
    np.testing.assert_array_equal(read(array.T if turned else array), array)


@pytest.mark.parametrize(
    "array",
    [STEREO[::2], STEREO[::-1], np.asfortranarray(STEREO), np.ma.masked_array(STEREO), STEREO.T[:, ::3]],
    ids=range(5),
)
def test_views_and_subclasses_are_read_as_their_values(array: Any) -> None:
    expected = np.array(array, copy=True, subok=False)
    found = read(array)
    assert type(found) is np.ndarray and found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected if expected.shape[0] > 2 else expected.T)


def test_empty_sound_has_no_samples() -> None:
    for shape in [(0,), (0, 2), (0, 1)]:
        assert read(np.zeros(shape, np.int16)).shape == (0, 1)


REFUSED: list[tuple[str, Any]] = [
    (r"shape \[\]; expected", np.array(0.5)),
    (r"shape \[1, 400, 2\]; expected", STEREO[None]),
    (r"shape \[2, 2\], of which neither axis is the longer", STEREO[:2]),
    (r"shape \[400, 100\]; expected .* up to 64 channels", np.zeros((100, 400), np.float32)),
    ("holds int64; expected floats in -1 .. 1, int8, uint8, int16 or int32", np.zeros(5, np.int64)),
    ("holds uint16", np.zeros(5, np.uint16)),
    ("holds uint32", np.zeros(5, np.uint32)),
    ("holds bool", np.zeros(5, bool)),
    ("holds complex64", np.zeros(5, np.complex64)),
    ("holds object", np.array([None])),
    ("holds str", np.array(["a"])),
    ("holds records", np.zeros(3, [("left", "f4"), ("right", "f4")])),
    ("has masked samples", np.ma.masked_array(CLIP, CLIP > 0)),
    (
        "int32 and goes to 8,388,607 only, which is 24-bit sound or almost silence",
        np.array([0, 2**23 - 1, -5], np.int32),
    ),
]


@pytest.mark.parametrize(("sentence", "array"), REFUSED, ids=[sentence for sentence, _ in REFUSED])
def test_what_is_no_sound_is_refused_by_its_name(sentence: str, array: Any) -> None:
    with pytest.raises(AntiphonError, match=sentence):
        read(array)


def test_int32_silence_and_the_least_sample_are_read() -> None:
    assert not read(np.zeros(9, np.int32)).any() and read(np.full(9, -(2**31), np.int32)).min() == -1


def test_a_piece_of_sound_keeps_its_second_axis() -> None:
    assert columns(np.zeros((1, 2), np.int16)).shape == (1, 2) and columns(
        np.full((2, 2), 5, np.int32)
    ).shape == (2, 2)
