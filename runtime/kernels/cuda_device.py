"""An NVIDIA GPU through cuda-core and direct driver calls. This module can be imported without either."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..bundle.errors import AntiphonError, require_extra
from .contract import Image

WARP = 32
FREE_SHARED_BYTES = 48 * 1024
"""Shared memory that a kernel gets without a request to the driver."""
INTEGERS: Mapping[str, Callable[[int], Any]] = {"int32": np.int32, "int64": np.int64}
"""Types that give cuda.core.launch the width of an integer; it takes a plain Python int for an address."""


class CudaDevice:
    """GPU `ordinal` in its primary context, which PyTorch and CuPy use, too. Implements `driver.Device`."""

    def __init__(self, ordinal: int = 0) -> None:
        """Raises AntiphonError if cuda-core, the NVIDIA driver or the GPU is missing."""
        require_extra("kernels", "Running kernels on a GPU", "cuda.core", "cuda.bindings")
        import cuda.core as core
        from cuda.bindings import driver

        self._core, self._driver = core, driver
        try:
            self._device = core.Device(ordinal)
            self._device.set_current()
        # a missing library, a missing GPU and a bad number each raise another class
        except Exception as error:
            raise _no_gpu(ordinal, error) from None
        self.name: str = self._device.name
        self.capability: tuple[int, int] = (
            self._device.compute_capability.major,
            self._device.compute_capability.minor,
        )
        self.max_shared_bytes: int = self._device.properties.max_shared_memory_per_block_optin
        self._handle = self._checked(driver.cuDeviceGet(ordinal))
        self._streams: dict[int, Any] = {0: self._device.default_stream}

    def versions(self) -> dict[str, str]:
        """Versions by name: the newest CUDA that the driver supports, and the packages."""
        import cuda.bindings

        number = self._checked(self._driver.cuDriverGetVersion())
        return {
            "driver CUDA": f"{number // 1000}.{number % 1000 // 10}",
            "cuda-core": self._core.__version__,
            "cuda-bindings": cuda.bindings.__version__,
        }

    def allocate(self, size: int, stream: int) -> tuple[int, object]:
        try:
            buffer = self._device.memory_resource.allocate(size, stream=self._stream(stream))
        except Exception as error:
            raise AntiphonError(
                f"{self.name} gave no {size} bytes ({_line(error)}); while a CUDA graph is captured, "
                "run the same call once before and give its outputs."
            ) from None
        return int(buffer.handle), buffer

    def write(self, pointer: int, values: np.ndarray, stream: int) -> None:
        # pageable memory is read before this returns
        self._checked(self._driver.cuMemcpyHtoDAsync(pointer, values.ctypes.data, values.nbytes, stream))

    def read(self, pointer: int, values: np.ndarray, stream: int) -> None:
        self._checked(self._driver.cuMemcpyDtoHAsync(values.ctypes.data, pointer, values.nbytes, stream))
        self.wait(stream)

    def load(self, key: str, image: Image, cubin: bytes) -> Any:
        """The image's kernel, with permission to use the shared memory that it needs.

        Raises AntiphonError if the GPU or its driver cannot load it.
        """
        if image.shared_bytes > self.max_shared_bytes:
            raise AntiphonError(
                f"{key} for {image.target} wants {image.shared_bytes} bytes of shared memory; "
                f"{self.name} has {self.max_shared_bytes}."
            )
        try:
            kernel = self._core.ObjectCode.from_cubin(cubin).get_kernel(image.entry)
        except Exception as error:
            raise AntiphonError(
                f"{self.name} does not take {key} for {image.target} ({_line(error)})."
            ) from None
        if image.shared_bytes > FREE_SHARED_BYTES:
            attribute = self._driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            self._checked(
                self._driver.cuKernelSetAttribute(attribute, image.shared_bytes, kernel.handle, self._handle)
            )
        return kernel

    def launch(
        self, kernel: Any, image: Image, grid: tuple[int, int, int], arguments: list[int], stream: int
    ) -> None:
        config = self._core.LaunchConfig(
            grid=grid, block=(image.warps * WARP, 1, 1), shmem_size=image.shared_bytes
        )
        self._core.launch(self._stream(stream), config, kernel, *launch_arguments(image, arguments))

    def wait(self, stream: int) -> None:
        self._checked(self._driver.cuStreamSynchronize(stream))

    def _stream(self, handle: int) -> Any:
        if handle not in self._streams:
            self._streams[handle] = self._core.Stream.from_handle(handle)
        return self._streams[handle]

    def _checked(self, result: tuple[Any, ...]) -> Any:
        """The value of a driver call. Raises RuntimeError with the driver's error name, since the user did
        not cause it.
        """
        code, *values = result
        if code != self._driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"The CUDA driver says {code.name}.")
        return values[0] if values else None


def launch_arguments(image: Image, values: list[int]) -> list[Any]:
    """`values` in the form for cuda.core.launch: addresses as int, integers in the width of the kernel's
    parameter.
    """
    return [
        value if kind.startswith("*") else INTEGERS[kind](value)
        for kind, value in zip(image.parameters, values, strict=True)
    ]


def _no_gpu(ordinal: int, error: Exception) -> AntiphonError:
    if type(error).__name__ == "DynamicLibNotFoundError":
        return AntiphonError(
            "No NVIDIA driver is installed here (libcuda is missing); "
            "running kernels needs an NVIDIA GPU and its driver."
        )
    return AntiphonError(
        f"GPU {ordinal} cannot be used ({_line(error)}); running kernels needs an NVIDIA GPU and its driver."
    )


def _line(error: Exception) -> str:
    """The error's first line without its full stop, for use inside a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
