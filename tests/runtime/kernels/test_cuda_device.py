"""The real GPU's wrapper, without one: what it asks of cuda-core and the driver,
and what it says where there is none.
"""

from __future__ import annotations

import ctypes
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from antiphon.runtime.bundle.errors import AntiphonError
from antiphon.runtime.kernels.contract import Image
from antiphon.runtime.kernels.cuda_device import CudaDevice, launch_arguments

IMAGE = Image("entry", "sm90", ("*bfloat16", "int32", "int64", "*bool"), 4, 1000, 32, 0, "", "")
BIG = Image("entry", "sm90", (), 8, 100_000, 32, 0, "", "")


class Recorder:
    """Stands for cuda.core and cuda.bindings.driver: every call is kept; driver calls succeed."""

    def __init__(self, refused: str = "") -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        driver = SimpleNamespace(
            CUresult=SimpleNamespace(CUDA_SUCCESS=SimpleNamespace(name="CUDA_SUCCESS")),
            CUfunction_attribute=SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="dynamic"),
        )
        values = {"cuDeviceGet": ("gpu",), "cuDriverGetVersion": (13000,)}
        for name in (
            "cuDeviceGet",
            "cuDriverGetVersion",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuStreamSynchronize",
            "cuKernelSetAttribute",
        ):
            code = (
                SimpleNamespace(name="CUDA_ERROR_ILLEGAL_ADDRESS")
                if name == refused
                else driver.CUresult.CUDA_SUCCESS
            )
            setattr(driver, name, self._kept(name, (code, *values.get(name, ()))))
        memory = SimpleNamespace(allocate=self._kept("allocate", SimpleNamespace(handle=4096), refused))
        capability = SimpleNamespace(major=9, minor=0)
        properties = SimpleNamespace(max_shared_memory_per_block_optin=232448)
        device = SimpleNamespace(
            name="H",
            compute_capability=capability,
            properties=properties,
            default_stream="default",
            memory_resource=memory,
            set_current=lambda: None,
        )
        code = SimpleNamespace(get_kernel=self._kept("get_kernel", SimpleNamespace(handle="kernel"), refused))
        core = SimpleNamespace(
            __version__="1.2.2",
            Device=lambda ordinal: device,
            Stream=SimpleNamespace(from_handle=lambda handle: f"stream {handle}"),
            ObjectCode=SimpleNamespace(from_cubin=self._kept("from_cubin", code)),
            LaunchConfig=lambda **given: given,
            launch=self._kept("launch", None),
        )
        self.core, self.driver = core, driver

    def _kept(self, name: str, result: Any, refused: str = "") -> Any:
        def call(*given: Any, **named: Any) -> Any:
            self.calls.append((name, given, named))
            if name == refused:
                raise RuntimeError("CUDA_ERROR_NO: no.\nlong words")
            return result

        return call

    def named(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(given, keywords) for called, given, keywords in self.calls if called == name]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Recorder:
    made = Recorder(getattr(request, "param", ""))
    bindings = SimpleNamespace(driver=made.driver, __version__="13.0.3")
    for name, module in {
        "cuda": SimpleNamespace(core=made.core, bindings=bindings),
        "cuda.core": made.core,
        "cuda.bindings": bindings,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", made.driver)  # type: ignore[arg-type]
    return made


def test_it_says_what_the_gpu_is(recorder: Recorder) -> None:
    device = CudaDevice()
    assert (device.name, device.capability, device.max_shared_bytes) == ("H", (9, 0), 232448)
    assert device.versions() == {"driver CUDA": "13.0", "cuda-core": "1.2.2", "cuda-bindings": "13.0.3"}


def test_a_launch_is_grid_threads_shared_memory_and_typed_arguments(recorder: Recorder) -> None:
    CudaDevice().launch("kernel", IMAGE, (5, 6, 7), [4096, 3, 2**40, 8192], 99)
    [((stream, config, kernel, *arguments), _)] = recorder.named("launch")
    assert (stream, kernel, arguments) == ("stream 99", "kernel", [4096, 3, 2**40, 8192])
    assert [type(value) for value in arguments] == [int, np.int32, np.int64, int]
    assert config == {"grid": (5, 6, 7), "block": (128, 1, 1), "shmem_size": 1000}


def test_stream_0_is_the_default_stream(recorder: Recorder) -> None:
    CudaDevice().launch("kernel", IMAGE, (1, 1, 1), [0, 0, 0, 0], 0)
    assert recorder.named("launch")[0][0][0] == "default"


def test_more_shared_memory_than_usual_is_asked_for_when_the_kernel_is_loaded(recorder: Recorder) -> None:
    device = CudaDevice()
    device.load("key", IMAGE, b"cubin")
    assert recorder.named("cuKernelSetAttribute") == []
    assert device.load("key", BIG, b"cubin").handle == "kernel"
    assert recorder.named("cuKernelSetAttribute") == [(("dynamic", 100_000, "kernel", "gpu"), {})]
    assert recorder.named("from_cubin")[0] == ((b"cubin",), {}) and recorder.named("get_kernel")[0] == (
        ("entry",),
        {},
    )


def test_memory_is_allocated_and_copied_in_the_streams_order(recorder: Recorder) -> None:
    device, values = CudaDevice(), np.zeros(3, np.float32)
    assert device.allocate(100, 7)[0] == 4096
    device.write(4096, values, 7)
    device.read(4096, values, 7)
    at = values.ctypes.data
    assert recorder.calls[1:] == [
        ("allocate", (100,), {"stream": "stream 7"}),
        ("cuMemcpyHtoDAsync", (4096, at, 12, 7), {}),
        ("cuMemcpyDtoHAsync", (at, 4096, 12, 7), {}),
        ("cuStreamSynchronize", (7,), {}),
    ]


def test_a_kernel_that_the_gpu_cannot_hold_is_one_sentence(recorder: Recorder) -> None:
    with pytest.raises(AntiphonError, match="wants 300000 bytes of shared memory; H has 232448"):
        CudaDevice().load("key", Image("entry", "sm90", (), 8, 300_000, 32, 0, "", ""), b"")


@pytest.mark.parametrize("recorder", ["get_kernel"], indirect=True)
def test_machine_code_that_the_driver_refuses_is_one_sentence(recorder: Recorder) -> None:
    with pytest.raises(AntiphonError, match=r"^H does not take key for sm90 \(CUDA_ERROR_NO: no\)\.$"):
        CudaDevice().load("key", IMAGE, b"")


@pytest.mark.parametrize("recorder", ["allocate"], indirect=True)
def test_memory_that_is_not_there_is_one_sentence(recorder: Recorder) -> None:
    with pytest.raises(
        AntiphonError, match=r"^H gave no 100 bytes \(CUDA_ERROR_NO: no\); while a CUDA graph"
    ):
        CudaDevice().allocate(100, 0)


@pytest.mark.parametrize("recorder", ["cuStreamSynchronize"], indirect=True)
def test_a_failure_of_the_driver_has_its_name(recorder: Recorder) -> None:
    with pytest.raises(RuntimeError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        CudaDevice().wait(0)


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.core", None)
    with pytest.raises(AntiphonError, match=r'run: pip install "antiphon\[kernels\]"'):
        CudaDevice()


def test_a_missing_driver_or_gpu_is_one_sentence() -> None:
    core = pytest.importorskip("cuda.core")
    try:
        core.Device(0).set_current()
    except Exception:
        with pytest.raises(AntiphonError, match=r"an NVIDIA GPU and its driver\.$"):
            CudaDevice(0)
    else:
        pytest.skip("there is a GPU here")


def test_importing_it_needs_no_package_for_gpus(tmp_path: Path) -> None:
    code = (
        "import sys, antiphon.runtime.kernels.driver, antiphon.runtime.kernels.cuda_device; "
        "print(sorted({n.split('.')[0] for n in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert not [
        name
        for name in ("cuda", "torch", "triton", "ml_dtypes", "onnx", "onnxruntime")
        if f"'{name}'" in loaded
    ]


def test_cuda_core_gives_a_kernel_addresses_and_integers_as_launch_arguments_says() -> None:
    handler = pytest.importorskip("cuda.core._kernel_arg_handler")
    held = handler.ParamHolder(tuple(launch_arguments(IMAGE, [0x7F0000000010, -5, 2**40, 16])))
    places = (ctypes.c_void_p * 4).from_address(held.ptr)
    kinds = (ctypes.c_uint64, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint64)
    assert [kind.from_address(place).value for kind, place in zip(kinds, places, strict=True)] == [
        0x7F0000000010,
        -5,
        2**40,
        16,
    ]


def test_cuda_core_has_what_the_wrapper_calls() -> None:
    core = pytest.importorskip("cuda.core")
    bindings = pytest.importorskip("cuda.bindings.driver")
    config = core.LaunchConfig(grid=(5, 6, 7), block=(128, 1, 1), shmem_size=1000)
    assert (tuple(config.grid), tuple(config.block), config.shmem_size) == ((5, 6, 7), (128, 1, 1), 1000)
    assert list(inspect.signature(core.launch).parameters)[:3] == ["stream", "config", "kernel"]
    assert "stream" in inspect.signature(core.MemoryResource.allocate).parameters
    for owner, names in {
        core.Device: (
            "set_current",
            "name",
            "compute_capability",
            "properties",
            "default_stream",
            "memory_resource",
        ),
        core.Stream: ("from_handle",),
        core.ObjectCode: ("from_cubin", "get_kernel"),
        core.Kernel: ("handle",),
        core.Buffer: ("handle",),
        bindings: (
            "cuDeviceGet",
            "cuDriverGetVersion",
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuStreamSynchronize",
            "cuKernelSetAttribute",
        ),
        bindings.CUfunction_attribute: ("CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES",),
        bindings.CUresult: ("CUDA_SUCCESS",),
    }.items():
        assert not [name for name in names if not hasattr(owner, name)]
