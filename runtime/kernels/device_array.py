"""Tensors in GPU memory from any source: an address, a shape and a dtype."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..bundle.errors import AntiphonError
from .contract import ALIGNMENT, DTYPE_BYTES

_INTERFACE_DTYPES = {
    "<f4": "float32",
    "<f2": "float16",
    "<i8": "int64",
    "<i4": "int32",
    "|i1": "int8",
    "|u1": "uint8",
    "|b1": "bool",
}
"""Type strings of `__cuda_array_interface__`, which has none for bfloat16 and float8."""


class Memory(Protocol):
    """The functions of a GPU that arrays need. Streams are driver handles; 0 is the default stream."""

    def allocate(self, size: int, stream: int) -> tuple[int, object]:
        """The address of `size` bytes, and their owner: the bytes are freed when the owner is deleted."""

    def write(self, pointer: int, values: np.ndarray, stream: int) -> None:
        """Copies contiguous `values` to `pointer`. The caller may change them after the return."""

    def read(self, pointer: int, values: np.ndarray, stream: int) -> None:
        """Copies from `pointer` into contiguous `values`, after all work on the stream. Returns when the copy
        is done.
        """


@dataclass(frozen=True)
class DeviceArray:
    """A contiguous tensor in a GPU's memory."""

    pointer: int
    """The address, a multiple of ALIGNMENT."""
    shape: tuple[int, ...]
    dtype: str
    """A key of contract.DTYPE_BYTES."""
    owner: object = field(repr=False, default=None)
    """Keeps the memory allocated while the array exists."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]

    @classmethod
    def empty(cls, shape: Sequence[int], dtype: str, memory: Memory, stream: int = 0) -> DeviceArray:
        """A new array with undefined content."""
        sizes = tuple(int(size) for size in shape)
        # an empty array has an address, too
        pointer, owner = memory.allocate(max(math.prod(sizes) * DTYPE_BYTES[dtype], ALIGNMENT), stream)
        return cls(pointer, sizes, dtype, owner)

    @classmethod
    def from_numpy(
        cls, values: np.ndarray, memory: Memory, dtype: str | None = None, stream: int = 0
    ) -> DeviceArray:
        """A copy of `values` in GPU memory as `dtype`, by default in their own dtype.

        Floats are rounded to nearest even; bfloat16 is rounded from float32. float8_e4m3fn is given as its
        bits in uint8. Raises AntiphonError for a dtype that kernels do not have.
        """
        bits = to_bits(np.asarray(values), dtype or np.asarray(values).dtype.name)
        array = cls.empty(bits.shape, dtype or np.asarray(values).dtype.name, memory, stream)
        if bits.size:
            memory.write(array.pointer, bits, stream)
        return array

    @classmethod
    def from_cuda(cls, tensor: Any, dtype: str | None = None) -> DeviceArray:
        """An array that shares the memory of `tensor`, a GPU tensor of PyTorch or of another library with
        `__cuda_array_interface__`.

        `dtype` reinterprets the values as a dtype of the same width, for example uint8 as float8_e4m3fn.
        Raises AntiphonError for a tensor that is not contiguous, not aligned or not on a GPU, and for a dtype
        that kernels do not have.
        """
        pointer, shape, found = _described(tensor)
        wanted = dtype or found
        if wanted not in DTYPE_BYTES or found not in DTYPE_BYTES or DTYPE_BYTES[wanted] != DTYPE_BYTES[found]:
            raise AntiphonError(
                f"A kernel's tensor has one of the dtypes {', '.join(DTYPE_BYTES)}; "
                f"found {found}{f' for {dtype}' if dtype else ''}."
            )
        if pointer % ALIGNMENT and 0 not in shape:
            raise AntiphonError(
                f"A kernel's tensor starts at a multiple of {ALIGNMENT} bytes; found one at {pointer:#x}: "
                "give a copy of it."
            )
        return cls(pointer, shape, wanted, tensor)

    def to_numpy(self, memory: Memory, stream: int = 0) -> np.ndarray:
        """A copy in host memory, after all work on the stream.

        bfloat16 becomes float32, float8_e4m3fn becomes its bits in uint8, and other dtypes are kept.
        """
        kinds = {"bfloat16": "uint16", "float8_e4m3fn": "uint8"}
        bits = np.empty(self.shape, kinds.get(self.dtype, self.dtype))
        if bits.size:
            memory.read(self.pointer, bits, stream)
        return (bits.astype(np.uint32) << 16).view(np.float32) if self.dtype == "bfloat16" else bits


def to_bits(values: np.ndarray, dtype: str) -> np.ndarray:
    """The memory content of `values` as `dtype`, contiguous.

    bfloat16 becomes uint16, float8_e4m3fn is given and returned as uint8, and others have NumPy's own dtype.
    """
    if dtype not in DTYPE_BYTES:
        raise AntiphonError(
            f"A kernel's tensor has one of the dtypes {', '.join(DTYPE_BYTES)}; found {dtype}."
        )
    if dtype == "float8_e4m3fn":
        if values.dtype != np.uint8:
            raise AntiphonError(
                f"A float8_e4m3fn tensor is given as its bits in uint8; found {values.dtype}."
            )
        return np.array(values, order="C")
    if dtype != "bfloat16":
        return np.array(values, dtype, order="C")
    bits = np.array(values, np.float32, order="C").view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
    # rounding could turn a NaN into an infinity
    return np.where(np.isnan(bits.view(np.float32)), 0x7FC0, rounded).astype(np.uint16)


def _described(tensor: Any) -> tuple[int, tuple[int, ...], str]:
    """Address, shape and dtype name of another library's GPU tensor."""
    if hasattr(tensor, "data_ptr"):  # PyTorch: its __cuda_array_interface__ has no bfloat16
        if not tensor.is_cuda:
            raise AntiphonError(f"A kernel's tensor lies in GPU memory; found one on {tensor.device}.")
        if not tensor.is_contiguous():
            raise AntiphonError(
                "A kernel's tensor is contiguous; "
                f"found strides {tuple(tensor.stride())} for shape {tuple(tensor.shape)}."
            )
        return (
            int(tensor.data_ptr()),
            tuple(int(size) for size in tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
        )
    interface = getattr(tensor, "__cuda_array_interface__", None)
    if interface is None:
        raise AntiphonError(
            f"A kernel's tensor has data_ptr or __cuda_array_interface__; found {type(tensor).__name__}."
        )
    shape: tuple[int, ...] = tuple(int(size) for size in interface["shape"])
    kind = str(interface["typestr"])
    strides = interface.get("strides")
    if strides is not None and 0 not in shape:
        width = int(kind[2:])
        wanted = [width * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
        if any(
            found != expected and size > 1
            for found, expected, size in zip(strides, wanted, shape, strict=True)
        ):
            raise AntiphonError(
                f"A kernel's tensor is contiguous; found strides {tuple(strides)} bytes for shape {shape}."
            )
    return int(interface["data"][0]), shape, _INTERFACE_DTYPES.get(kind, kind)
