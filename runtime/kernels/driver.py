"""Run compiled ops on a GPU from their launch contracts alone, without Triton and PyTorch.

    with Launcher.open(folder) as launcher:
        y = launcher.run("CausalConvState", {name: launcher.array(values, "bfloat16") ...}, {})["y"]

Only `Launcher.wait` and reading an array wait for the GPU. A call allocates nothing if it gives all its
outputs and an equal call ran before on the same stream. Such a call can be captured in a CUDA graph. The
graph uses that stream's memory between launches: replay it on that stream, and close the launcher after it. A
new array belongs to the given stream: delete it only when other streams have finished their work on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..bundle.errors import AntiphonError, UnsupportedTarget
from .contract import ALIGNMENT, DTYPE_BYTES, GPU_TARGETS, Image, Launch, Operand, Program, image_key
from .device_array import DeviceArray, Memory
from .expression import evaluate
from .invoke import bind, invoke, select
from .library import KernelLibrary

MAX_GRID = (2**31 - 1, 65535, 65535)
"""The most blocks of a launch in x, y and z. Source: CUDA C++ programming guide, technical specifications."""
_INTEGER_LIMITS = {"int32": 2**31, "int64": 2**63}


class Device(Memory, Protocol):
    """The functions of a GPU that the launcher needs; `cuda_device.CudaDevice` implements them. Streams are
    driver handles; 0 is the default stream.
    """

    name: str
    capability: tuple[int, int]

    def versions(self) -> dict[str, str]:
        """Versions of the driver and of the packages that call it, by name."""

    def load(self, key: str, image: Image, cubin: bytes) -> Any:
        """The kernel of an image, ready to launch."""

    def launch(
        self, kernel: Any, image: Image, grid: tuple[int, int, int], arguments: list[int], stream: int
    ) -> None:
        """Starts `kernel`. `arguments` are addresses and integers of the types `image.parameters`."""

    def wait(self, stream: int) -> None:
        """Returns when the stream's work is done."""


def fits(target: str, capability: tuple[int, int]) -> bool:
    """Whether machine code for `target` runs on a GPU of this compute capability.

    Code for 8.x runs on the same major version from its minor upwards. From 9.0 on, Triton compiles for
    architecture-specific features (sm_90a), and such code runs on that architecture only. Source: CUDA C++
    programming guide, binary compatibility and architecture-specific features.
    """
    major, minor = divmod(int(target.removeprefix("sm")), 10)
    return (major, minor) == capability or (major < 9 and major == capability[0] and minor <= capability[1])


def target_for(device: Device) -> str:
    """The best target of contract.GPU_TARGETS for `device`. Raises UnsupportedTarget if none runs on it."""
    fitting = [target for target in GPU_TARGETS if fits(target, device.capability)]
    if not fitting:
        major, minor = device.capability
        raise UnsupportedTarget(
            f"Kernels are compiled for {', '.join(GPU_TARGETS)}; "
            f"{device.name} has compute capability {major}.{minor}, which none of them fits."
        )
    return fitting[-1]


def open_device(ordinal: int = 0) -> Device:
    """The NVIDIA GPU with the number `ordinal`. Raises AntiphonError if a package, the driver or the GPU is
    missing.
    """
    from .cuda_device import CudaDevice

    return CudaDevice(ordinal)


class Launcher:
    """The ops of one library on one GPU. Only the thread that made it may use it."""

    def __init__(self, library: KernelLibrary, device: int | Device = 0) -> None:
        """Raises AntiphonError if the GPU does not exist or cannot run the library's target."""
        self.library = library
        self.device = open_device(device) if isinstance(device, int) else device
        if not fits(library.target, self.device.capability):
            major, minor = self.device.capability
            raise UnsupportedTarget(
                f"Kernels for {library.target} do not run on {self.device.name} "
                f"(compute capability {major}.{minor})."
            )
        # hashing takes longer than a launch
        self._keys = {
            id(step): image_key(program, step) for program in library.programs for step in program.launches
        }
        self._kernels: dict[str, Any] = {}
        self._scratch: dict[tuple[int, str, str, str], DeviceArray] = {}
        self._outgrown: list[DeviceArray] = []

    @classmethod
    def open(cls, folder: str | Path, device: int | Device = 0) -> Launcher:
        """The launcher of the library at `folder` for this GPU.

        Raises AntiphonError as `__init__` does, and if the library has no kernels for the GPU.
        """
        found = open_device(device) if isinstance(device, int) else device
        return cls(KernelLibrary.open(folder, target_for(found)), found)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the loaded kernels and the scratch memory."""
        self._kernels.clear()
        self._scratch.clear()
        self._outgrown.clear()

    def array(self, values: np.ndarray, dtype: str | None = None, stream: Any = None) -> DeviceArray:
        """A copy of `values` on the GPU; see DeviceArray.from_numpy."""
        return DeviceArray.from_numpy(values, self.device, dtype, stream_handle(stream))

    def numpy(self, array: DeviceArray, stream: Any = None) -> np.ndarray:
        """A copy of `array` in host memory, after all work on the stream; see DeviceArray.to_numpy."""
        return array.to_numpy(self.device, stream_handle(stream))

    def wait(self, stream: Any = None) -> None:
        """Returns when all work on the stream is done."""
        self.device.wait(stream_handle(stream))

    def run(
        self,
        op: str,
        inputs: Mapping[str, DeviceArray],
        attributes: Mapping[str, int],
        outputs: Mapping[str, DeviceArray] | None = None,
        stream: Any = None,
    ) -> dict[str, DeviceArray]:
        """Computes `op` with the first compiled program that accepts these inputs, and returns its outputs by
        name.

        Arrays in `outputs` are written in place. Other outputs are new memory, or the memory of an input if
        the program works in place. `stream` is None (the default stream), a driver handle, or a stream of
        PyTorch, CuPy or cuda.core. The call returns before the stream has done the work. Raises AntiphonError
        if no compiled program fits.
        """
        program = select(
            self.library.programs,
            op,
            {name: (array.dtype, array.shape) for name, array in inputs.items()},
            attributes,
        )
        return self.run_program(program, inputs, attributes, outputs, stream)

    def run_program(
        self,
        program: Program,
        inputs: Mapping[str, DeviceArray],
        attributes: Mapping[str, int],
        outputs: Mapping[str, DeviceArray] | None = None,
        stream: Any = None,
    ) -> dict[str, DeviceArray]:
        """Computes as `run` does, with a program chosen by the caller. The shapes must be of the program's
        class.
        """
        handle = stream_handle(stream)
        _check(program, inputs, attributes, outputs or {})
        scratch = {spec.name for spec in program.scratch}

        def allocate(spec: Operand, shape: tuple[int, ...]) -> DeviceArray:
            if spec.name not in scratch:
                return DeviceArray.empty(shape, spec.dtype, self.device, handle)
            return self._between((handle, program.op, program.name, spec.name), shape, spec.dtype)

        def launch(step: Launch, grid: tuple[int, int, int], arguments: list[Any]) -> None:
            key = self._keys.get(id(step)) or image_key(program, step)
            image = self.library.images[key]
            values = [
                argument.pointer if isinstance(argument, DeviceArray) else argument for argument in arguments
            ]
            _check_launch(step, grid, values)
            self.device.launch(self._kernel(key, image), image, grid, values, handle)

        return invoke(
            program,
            inputs,
            attributes,
            shape_of=lambda array: array.shape,
            allocate=allocate,
            launch=launch,
            given=outputs,
        )

    def _between(self, key: tuple[int, str, str, str], shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Scratch memory of a program. The work of one stream runs in order, so all calls on a stream share
        it.

        When it grows, its size at least doubles. Outgrown memory is kept for CUDA graphs that were captured
        with it; in all this is less than twice the largest size.
        """
        size, held = math.prod(shape) * DTYPE_BYTES[dtype], self._scratch.get(key)
        if held is None or held.size < size:
            fresh = DeviceArray.empty(
                (max(size, 2 * held.size if held else 0),), "uint8", self.device, key[0]
            )
            if held:
                self._outgrown.append(held)
            self._scratch[key] = held = fresh
        return DeviceArray(held.pointer, shape, dtype, held.owner)

    def _kernel(self, key: str, image: Image) -> Any:
        if key not in self._kernels:
            self._kernels[key] = self.device.load(key, image, self.library.cubin(key))
        return self._kernels[key]


def stream_handle(stream: Any) -> int:
    """The driver's handle of `stream`.

    None is the default stream, and an int is a handle. Other objects have `__cuda_stream__`, `cuda_stream` or
    `ptr`.
    """
    if stream is None or isinstance(stream, int):
        return stream or 0
    if hasattr(stream, "__cuda_stream__"):
        return int(stream.__cuda_stream__()[1])
    for name in ("cuda_stream", "ptr"):  # older PyTorch; older CuPy
        if hasattr(stream, name):
            return int(getattr(stream, name))
    raise AntiphonError(
        f"A stream is None, a handle or an object with __cuda_stream__; found {type(stream).__name__}."
    )


def _check(
    program: Program,
    inputs: Mapping[str, DeviceArray],
    attributes: Mapping[str, int],
    outputs: Mapping[str, DeviceArray],
) -> None:
    """Check input dtypes, addresses and the caller's outputs against the contract."""
    symbols = bind(program, {name: array.shape for name, array in inputs.items()}, attributes)
    for name, array in {**inputs, **outputs}.items():
        if array.pointer % ALIGNMENT and array.size:
            raise AntiphonError(
                f"{program.op}: {name} starts at {array.pointer:#x}, "
                f"which is no multiple of {ALIGNMENT} bytes."
            )
    for spec in program.inputs:
        if inputs[spec.name].dtype != spec.dtype:
            raise AntiphonError(
                f"{program.op} ({program.name}): {spec.name} is {spec.dtype}; "
                f"found {inputs[spec.name].dtype}."
            )
    specs = {spec.name: spec for spec in program.outputs}
    for name, array in outputs.items():
        if name not in specs:
            raise AntiphonError(f"{program.op} has the outputs {', '.join(specs)}; found {name}.")
        shape = tuple(evaluate(size, symbols) for size in specs[name].shape)
        if (array.dtype, array.shape) != (specs[name].dtype, shape):
            raise AntiphonError(
                f"{program.op}: {name} is {specs[name].dtype} {list(shape)}; "
                f"the memory given is {array.dtype} {list(array.shape)}."
            )
        alias = specs[name].alias
        if alias and array.pointer != inputs[alias].pointer:
            raise AntiphonError(
                f"{program.op} ({program.name}) writes {name} where {alias} lies; "
                "the memory given is elsewhere."
            )


def _check_launch(step: Launch, grid: tuple[int, int, int], values: list[int]) -> None:
    """Check that the sizes fit the driver's limits and the kernel's integers."""
    if any(blocks > most for blocks, most in zip(grid, MAX_GRID, strict=True)):
        raise AntiphonError(
            f"{step.kernel} would need {grid} blocks, more than the {MAX_GRID} that a GPU takes at once; "
            "give it fewer rows."
        )
    for scalar, value in zip(step.scalars, values[len(step.inputs) :], strict=False):
        limit = _INTEGER_LIMITS[scalar.dtype]
        if not -limit <= value < limit:
            raise AntiphonError(f"{step.kernel}: {scalar.name} = {value} does not fit {scalar.dtype}.")
        assert value % scalar.multiple == 0, (
            f"{step.kernel}: {scalar.name} = {value} is no multiple of {scalar.multiple}, "
            "as the compiled kernel takes it to be"
        )
