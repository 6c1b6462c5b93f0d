"""Arrays in GPU memory: what goes in comes out, rounded as the dtype rounds;
what kernels cannot take is one sentence.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")
ml_dtypes = pytest.importorskip("ml_dtypes")

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.device_array import DeviceArray, to_bits

from .host_device import HostDevice


@settings(deadline=None, max_examples=200)
@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_bfloat16_is_rounded_to_nearest_even(values: list[float]) -> None:
    numbers = np.array(values, np.float32)
    expected = numbers.astype(ml_dtypes.bfloat16)
    found = to_bits(numbers, "bfloat16")
    is_nan = np.isnan(numbers)
    np.testing.assert_array_equal(found[~is_nan], expected.view(np.uint16)[~is_nan])
    assert np.isnan(found[is_nan].view(ml_dtypes.bfloat16).astype(np.float32)).all()


@pytest.mark.parametrize(
    "dtype", ["bfloat16", "float16", "float32", "int64", "int32", "int8", "uint8", "bool", "float8_e4m3fn"]
)
def test_what_goes_in_comes_out(dtype: str) -> None:
    device = HostDevice([])
    values = np.array(
        [[0, 1, 1], [1, 0, 1]], "uint8" if dtype == "float8_e4m3fn" else dtype.replace("bfloat16", "float32")
    )
    array = DeviceArray.from_numpy(values.T, device, dtype)
    assert (array.shape, array.dtype, array.size) == (
        (3, 2),
        dtype,
        6 * {"bfloat16": 2, "float16": 2, "float32": 4, "int64": 8, "int32": 4}.get(dtype, 1),
    )
    found = array.to_numpy(device)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values.T)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2)])
def test_scalars_and_empty_arrays_have_an_address(shape: tuple[int, ...]) -> None:
    device = HostDevice([])
    array = DeviceArray.from_numpy(np.ones(shape, np.float32), device)
    assert array.pointer % 16 == 0 and array.pointer
    np.testing.assert_array_equal(array.to_numpy(device), np.ones(shape, np.float32))


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [(np.zeros(2), None, "found float64"), (np.zeros(2), "float8_e4m3fn", "as its bits in uint8")],
)
def test_a_dtype_that_kernels_lack_is_one_sentence(
    values: np.ndarray, dtype: str | None, message: str
) -> None:
    with pytest.raises(AntiphonError, match=message):
        DeviceArray.from_numpy(values, HostDevice([]), dtype)


class FakeTensor:
    """What DeviceArray.from_cuda asks of a tensor of PyTorch."""

    def __init__(
        self, dtype: str = "bfloat16", pointer: int = 4096, is_cuda: bool = True, contiguous: bool = True
    ) -> None:
        self.dtype, self.shape, self.device, self.is_cuda = (
            f"torch.{dtype}",
            (2, 3),
            "cuda:0" if is_cuda else "cpu",
            is_cuda,
        )
        self._pointer, self._contiguous = pointer, contiguous

    def data_ptr(self) -> int:
        return self._pointer

    def is_contiguous(self) -> bool:
        return self._contiguous

    def stride(self) -> tuple[int, int]:
        return (1, 2)


def interface(**changes: Any) -> SimpleNamespace:
    return SimpleNamespace(
        __cuda_array_interface__={
            "data": (8192, False),
            "shape": (2, 3),
            "typestr": "<f4",
            "strides": None,
            "version": 3,
        }
        | changes
    )


def test_tensors_of_pytorch_are_used_where_they_are() -> None:
    tensor = FakeTensor()
    array = DeviceArray.from_cuda(tensor)
    assert (array.pointer, array.shape, array.dtype, array.owner) == (4096, (2, 3), "bfloat16", tensor)
    assert DeviceArray.from_cuda(FakeTensor("uint8"), "float8_e4m3fn").dtype == "float8_e4m3fn"


@pytest.mark.parametrize("strides", [None, (12, 4)])
def test_arrays_with_a_cuda_interface_are_used_where_they_are(strides: tuple[int, int] | None) -> None:
    array = DeviceArray.from_cuda(interface(strides=strides))
    assert (array.pointer, array.shape, array.dtype) == (8192, (2, 3), "float32")


def test_strides_of_axes_of_one_do_not_matter() -> None:
    assert DeviceArray.from_cuda(interface(shape=(1, 3), strides=(400, 4))).shape == (1, 3)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (FakeTensor(is_cuda=False), "lies in GPU memory; found one on cpu"),
        (FakeTensor(contiguous=False), r"contiguous; found strides \(1, 2\)"),
        (FakeTensor(pointer=4100), "multiple of 16 bytes"),
        (FakeTensor("complex64"), "found complex64"),
        (interface(strides=(4, 8)), r"contiguous; found strides \(4, 8\) bytes"),
        (interface(typestr="<f8"), "found <f8"),
        (np.zeros(3), "has data_ptr or __cuda_array_interface__; found ndarray"),
    ],
)
def test_a_tensor_that_kernels_cannot_take_is_one_sentence(tensor: Any, message: str) -> None:
    with pytest.raises(AntiphonError, match=message):
        DeviceArray.from_cuda(tensor)


def test_a_dtype_of_another_width_is_no_renaming() -> None:
    with pytest.raises(AntiphonError, match="found uint8 for float16"):
        DeviceArray.from_cuda(FakeTensor("uint8"), "float16")
