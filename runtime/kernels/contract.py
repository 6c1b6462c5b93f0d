"""The description of a compiled op as plain data: the kernels that run, their arguments and their grids.

A Program is one way to compute one op: a list of launches, for given dtypes and a class of shapes. Each
launch reads tensors and integer scalars and writes tensors. The order is inputs, scalars, outputs, which is
also the order of the kernel's parameters; TensorRT's ahead-of-time plugins require it. All values that depend
on the shapes are expressions (see `expression`), so one contract serves all shapes of its class. Four
executors read it: the driver launcher, the Triton interpreter, `torch.library.triton_op` and TensorRT.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CONTRACT_VERSION = 1
DTYPE_BYTES = {
    "bfloat16": 2,
    "float16": 2,
    "float32": 4,
    "float8_e4m3fn": 1,
    "int64": 8,
    "int32": 4,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
ALIGNMENT = 16
"""Every tensor's address is a multiple of this number of bytes, since kernels load 16 bytes at once."""
MAX_SHARED_BYTES = {
    "sm80": 166912,
    "sm86": 101376,
    "sm89": 101376,
    "sm90": 232448,
    "sm100": 232448,
    "sm120": 101376,
}
"""The most shared memory of one block, per target. Source: CUDA C++ programming guide, technical
specifications per compute capability.
"""
GPU_TARGETS = tuple(MAX_SHARED_BYTES)


@dataclass(frozen=True)
class Operand:
    """A contiguous tensor of a program."""

    name: str
    dtype: str
    """A key of DTYPE_BYTES."""
    shape: tuple[str, ...]
    """Expressions. In an input, a bare name is bound to the size found there. A leading `*name` is bound to
    the product of all leading axes.
    """
    alias: str = ""
    """For an output: the input whose memory it shares; that input is updated in place."""


@dataclass(frozen=True)
class Scalar:
    """An integer argument of a kernel."""

    name: str
    value: str
    """An expression over symbols and attributes."""
    dtype: str = "int32"
    multiple: int = 1
    """16 if the compiler may assume that the value is a multiple of 16; the program's `when` must guarantee
    it.
    """


@dataclass(frozen=True)
class Launch:
    """One kernel launch. In TensorRT it is a node of its own."""

    kernel: str
    """FOLDER.function: the Triton function in plugins/FOLDER/kernels.py."""
    inputs: tuple[str, ...]
    scalars: tuple[Scalar, ...]
    outputs: tuple[str, ...]
    grid: tuple[str, str, str]
    """Blocks in x, y and z, as expressions. A launch with an empty grid is skipped."""
    constants: Mapping[str, int | float | bool | str] = field(default_factory=dict)
    """Compile-time parameters of the function, by name."""
    warps: int = 4
    stages: int = 3
    hot: bool = True
    """Whether register spills would cost noticeable time. The tests require that hot kernels do not spill."""


@dataclass(frozen=True)
class Program:
    """One way to compute an op, for some dtypes and shapes."""

    op: str
    """Name in plugins.registry.OPS."""
    name: str
    """Distinguishes the programs of one op, for example `bfloat16-decode`."""
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    launches: tuple[Launch, ...]
    attributes: tuple[str, ...] = ()
    """Integers from the caller, which are symbols in the expressions; a boolean is 0 or 1."""
    symbols: Mapping[str, str] = field(default_factory=dict)
    """Further symbols as expressions of the bound ones, evaluated in order."""
    scratch: tuple[Operand, ...] = ()
    """Tensors that pass data between the launches."""
    when: str = "0 == 0"
    """Condition over all symbols under which this program may run. The first program that fits is used."""

    def tensor(self, name: str) -> Operand:
        return next(spec for spec in (*self.inputs, *self.outputs, *self.scratch) if spec.name == name)


@dataclass(frozen=True)
class Image:
    """One compiled kernel, with all that a driver needs to load and start it."""

    entry: str
    target: str
    parameters: tuple[str, ...]
    """Types of the entry's parameters, in order: `*dtype` for pointers, the dtype for scalars."""
    warps: int
    shared_bytes: int
    registers: int
    spill_bytes: int
    cubin_sha256: str
    ptx_sha256: str


def parameters(program: Program, launch: Launch) -> tuple[str, ...]:
    """The kernel's parameter types in order: inputs, scalars, outputs."""
    inputs, outputs = (
        [f"*{program.tensor(name).dtype}" for name in names] for names in (launch.inputs, launch.outputs)
    )
    return (*inputs, *(scalar.dtype for scalar in launch.scalars), *outputs)


def image_key(program: Program, launch: Launch) -> str:
    """The key of the compiled kernel of a launch. Launches that can share one image have equal keys."""
    facts = [
        launch.kernel,
        parameters(program, launch),
        [s.multiple for s in launch.scalars],
        sorted(launch.constants.items()),
        launch.warps,
        launch.stages,
    ]
    return f"{launch.kernel}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"


def to_plain(value: Any) -> Any:
    """A contract's dataclass as JSON-ready dicts and lists."""
    return dataclasses.asdict(value)


def program_from_plain(plain: Mapping[str, Any]) -> Program:
    """The inverse of `to_plain` for a Program."""
    tensors = {
        kind: tuple(Operand(**{**spec, "shape": tuple(spec["shape"])}) for spec in plain[kind])
        for kind in ("inputs", "outputs", "scratch")
    }
    launches = tuple(
        Launch(
            **{
                **launch,
                "inputs": tuple(launch["inputs"]),
                "outputs": tuple(launch["outputs"]),
                "scalars": tuple(Scalar(**scalar) for scalar in launch["scalars"]),
                "grid": tuple(launch["grid"]),
            }
        )
        for launch in plain["launches"]
    )
    return Program(**{**plain, **tensors, "launches": launches, "attributes": tuple(plain["attributes"])})


def image_from_plain(plain: Mapping[str, Any]) -> Image:
    """The inverse of `to_plain` for an Image."""
    return Image(**{**plain, "parameters": tuple(plain["parameters"])})
