"""The compiled half of TensorRT as tensorrt.plugin sees it, in Python,
and a builder that asks plugins what the real one asks, in its order.

With it the real Python sources of tensorrt.plugin run without TensorRT's libraries. What the bindings would
refuse by type is refused here too. An Engine is plain data: kernel names, PTX, and expressions over the axes
of tensors, as TensorRT keeps them without Python.
"""

from __future__ import annotations

import enum
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 FP8 BF16 INT64 INT4 FP4 E8M0")
DimensionOperation = enum.Enum("DimensionOperation", "SUM PROD MAX MIN SUB EQUAL LESS FLOOR_DIV CEIL_DIV")
TensorFormat = enum.Enum("TensorFormat", "LINEAR CHW2 HWC8 CHW4 HWC")
PluginArgType = enum.Enum("PluginArgType", "INT")
PluginArgDataType = enum.Enum("PluginArgDataType", "INT8 INT16 INT32")
PluginFieldType = enum.Enum(
    "PluginFieldType", "UNKNOWN FLOAT16 FLOAT32 FLOAT64 INT8 INT16 INT32 CHAR DIMS BF16 INT64 FP8 INT4 FP4"
)
QuickPluginCreationRequest = enum.Enum(
    "QuickPluginCreationRequest", "UNKNOWN PREFER_AOT PREFER_JIT STRICT_AOT STRICT_JIT"
)
TensorRTPhase = enum.Enum("TensorRTPhase", "BUILD RUNTIME")
ENUMS = (
    DataType,
    DimensionOperation,
    TensorFormat,
    PluginArgType,
    PluginArgDataType,
    PluginFieldType,
    QuickPluginCreationRequest,
    TensorRTPhase,
)
CLASSES = (
    "Dims",
    "DimsExprs",
    "DynamicPluginTensorDesc",
    "IDimensionExpr",
    "IExprBuilder",
    "IPluginCreatorV3Quick",
    "IPluginV3",
    "IPluginV3QuickAOTBuild",
    "IPluginV3QuickBuild",
    "IPluginV3QuickCore",
    "IPluginV3QuickRuntime",
    "ISymExpr",
    "ITensor",
    "PluginField",
    "PluginFieldCollection",
    "PluginTensorDesc",
)
int32 = DataType.INT32

_OPERATIONS: dict[Any, Callable[[int, int], int]] = {
    DimensionOperation.SUM: lambda a, b: a + b,
    DimensionOperation.PROD: lambda a, b: a * b,
    DimensionOperation.MAX: max,
    DimensionOperation.MIN: min,
    DimensionOperation.SUB: lambda a, b: a - b,
    DimensionOperation.EQUAL: lambda a, b: int(a == b),
    DimensionOperation.LESS: lambda a, b: int(a < b),
    DimensionOperation.FLOOR_DIV: lambda a, b: a // b,
    DimensionOperation.CEIL_DIV: lambda a, b: -(-a // b),
}


class Logger:
    WARNING = "WARNING"

    def log(self, severity: str, message: str) -> None:
        pass


class IDimensionExpr:
    """A constant, an axis of a network input, or an operation on two others."""

    def __init__(
        self,
        value: int | tuple[str, int] | None = None,
        operation: Any = None,
        operands: tuple[IDimensionExpr, ...] = (),
    ) -> None:
        self.value, self.operation, self.operands = value, operation, operands

    def is_constant(self) -> bool:
        return (
            all(operand.is_constant() for operand in self.operands)
            if self.operation
            else isinstance(self.value, int)
        )

    def get_constant_value(self) -> int:
        return self.at({})

    def at(self, shapes: Mapping[str, Sequence[int]]) -> int:
        """The value for network inputs of these shapes."""
        if self.operation:
            return _OPERATIONS[self.operation](*(operand.at(shapes) for operand in self.operands))
        return self.value if isinstance(self.value, int) else shapes[self.value[0]][self.value[1]]  # type: ignore[index]


class IExprBuilder:
    def constant(self, value: int) -> IDimensionExpr:
        assert type(value) is int
        return IDimensionExpr(value)

    def operation(self, operation: Any, first: IDimensionExpr, second: IDimensionExpr) -> IDimensionExpr:
        assert (
            isinstance(operation, DimensionOperation)
            and isinstance(first, IDimensionExpr)
            and isinstance(second, IDimensionExpr)
        )
        return IDimensionExpr(operation=operation, operands=(first, second))


class ISymExpr:
    def __init__(self) -> None:
        self.type: Any = None
        self.dtype: Any = None
        self.expr: Any = None


class Dims(list):
    MAX_DIMS = 8

    def __init__(self, values: Any = ()) -> None:
        super().__init__([0] * values if isinstance(values, int) else values)


class DimsExprs(Dims):
    def __setitem__(self, index: Any, value: Any) -> None:
        assert isinstance(value, IDimensionExpr)
        super().__setitem__(index, value)


class PluginTensorDesc:
    def __init__(self, dims: Sequence[int] = (), type: Any = None) -> None:
        self.dims, self.type, self.format, self.scale = Dims(dims), type, TensorFormat.LINEAR, -1.0


class DynamicPluginTensorDesc:
    def __init__(self, dims: Sequence[int], type: Any) -> None:
        self.desc = PluginTensorDesc(dims, type)
        self.min = self.max = self.opt = self.desc.dims


class PluginField:
    def __init__(self, name: str, data: Any, type: Any) -> None:
        assert isinstance(data, (bytes, np.ndarray)) and isinstance(type, PluginFieldType)
        self.name, self.data, self.type = name, data, type


class PluginFieldCollection(list):
    pass


class IPluginV3:
    pass


class IPluginV3QuickCore:
    pass


class IPluginV3QuickBuild:
    pass


class IPluginV3QuickAOTBuild(IPluginV3QuickBuild):
    pass


class IPluginV3QuickRuntime:
    pass


class IPluginCreatorV3Quick:
    name = plugin_version = plugin_namespace = ""


class _Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, namespace: str) -> None:
        assert isinstance(creator, IPluginCreatorV3Quick) and namespace == creator.plugin_namespace
        self.creators[creator.name, creator.plugin_version, namespace] = creator

    def get_creator(self, name: str, version: str, namespace: str) -> Any:
        return self.creators[name, version, namespace]


_REGISTRY = _Registry()


def get_plugin_registry() -> _Registry:
    return _REGISTRY


class ITensor:
    """A tensor of a network; -1 stands for an axis that varies."""

    def __init__(
        self, name: str, dtype: Any, shape: Sequence[int], sizes: Sequence[IDimensionExpr] | None = None
    ) -> None:
        self.name, self.dtype, self.shape = name, dtype, Dims(shape)
        self.sizes = DimsExprs(
            sizes or [IDimensionExpr(size if size >= 0 else (name, axis)) for axis, size in enumerate(shape)]
        )


@dataclass
class Step:
    """A plugin layer in an engine."""

    inputs: list[ITensor]
    outputs: list[ITensor]
    aliases: list[int]
    """Per output: the input whose memory it is, or -1."""
    kernel: str
    ptx: bytes
    grid: tuple[IDimensionExpr, ...]
    block: tuple[IDimensionExpr, ...]
    shared_bytes: IDimensionExpr
    scalars: list[IDimensionExpr]

    def get_output(self, place: int) -> ITensor:
        return self.outputs[place]


@dataclass
class _LaunchParams:
    grid_x: Any = None
    grid_y: Any = None
    grid_z: Any = None
    block_x: Any = None
    block_y: Any = None
    block_z: Any = None
    shared_mem: Any = None


class _SymExprs:
    nbSymExprs = 0

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}

    def __setitem__(self, index: int, value: Any) -> None:
        assert index < self.nbSymExprs and _checked(value)
        self.held[index] = value


@dataclass
class Network:
    """A tensorrt.INetworkDefinition that builds each plugin layer as it is added."""

    steps: list[Step] = field(default_factory=list)

    def add_input(self, name: str, dtype: Any, shape: Sequence[int]) -> ITensor:
        return ITensor(name, dtype, shape)

    def add_plugin(self, function: Callable[[Any], Any], aot: bool) -> Step:
        inputs, shape_inputs, plugin = function(
            QuickPluginCreationRequest.STRICT_AOT if aot else QuickPluginCreationRequest.STRICT_JIT
        )
        assert isinstance(plugin, IPluginV3QuickAOTBuild) is aot and shape_inputs == []
        types = plugin.get_output_data_types(
            [tensor.dtype for tensor in inputs], [len(tensor.shape) for tensor in inputs]
        )
        sizes = plugin.get_output_shapes([tensor.sizes for tensor in inputs], [], IExprBuilder())
        assert len(types) == len(sizes) == plugin.get_num_outputs()
        outputs = [
            ITensor(
                f"{plugin.plugin_name}.{len(self.steps)}.{place}",
                dtype,
                [size.at({}) if size.is_constant() else -1 for size in every],
                every,
            )
            for place, (dtype, every) in enumerate(zip(types, sizes, strict=True))
        ]
        described = [DynamicPluginTensorDesc(tensor.shape, tensor.dtype) for tensor in (*inputs, *outputs)]
        offered = plugin.get_supported_format_combinations(described, len(inputs))
        assert [(one.type, one.format) for one in offered] == [
            (one.desc.type, TensorFormat.LINEAR) for one in described
        ]
        plugin.configure_plugin(described[: len(inputs)], described[len(inputs) :])
        assert plugin.get_valid_tactics() == []
        plugin.set_tactic(0)
        shape, scalars = _LaunchParams(), _SymExprs()
        plugin.get_launch_params(
            [tensor.sizes for tensor in inputs], described, len(inputs), shape, scalars, IExprBuilder()
        )
        kernel, ptx = plugin.clone().get_kernel(
            [one.desc for one in described[: len(inputs)]], [one.desc for one in described[len(inputs) :]]
        )
        self.steps.append(
            Step(
                inputs,
                outputs,
                [plugin.get_aliased_input(place) for place in range(len(outputs))],
                kernel,
                ptx,
                tuple(_checked(size) for size in (shape.grid_x, shape.grid_y, shape.grid_z)),
                tuple(_checked(size) for size in (shape.block_x, shape.block_y, shape.block_z)),
                _checked(shape.shared_mem),
                [_checked(scalars.held[place]) for place in range(scalars.nbSymExprs)],
            )
        )
        return self.steps[-1]


def _checked(value: Any) -> IDimensionExpr:
    assert isinstance(value, ISymExpr) and (value.type, value.dtype) == (
        PluginArgType.INT,
        PluginArgDataType.INT32,
    )
    assert isinstance(value.expr, IDimensionExpr), "a scalar without an expression"
    return value.expr


def plugin_sources() -> Path | None:
    """The folder of tensorrt.plugin's Python sources, where the wheel tensorrt-cu13-bindings is installed."""
    # finds without importing: the import loads TensorRT's libraries
    found = importlib.util.find_spec("tensorrt_bindings")
    folder = (
        Path(found.submodule_search_locations[0]) / "plugin"
        if found and found.submodule_search_locations
        else None
    )
    return folder if folder and (folder / "__init__.py").is_file() else None


@contextmanager
def real_plugin_module(folder: Path) -> Iterator[ModuleType]:
    """`tensorrt` is this module meanwhile and `tensorrt.plugin` the package in `folder`."""
    before = {name for name in sys.modules if name.split(".")[0] == "tensorrt"}
    assert not before, "the real TensorRT is loaded"
    core = ModuleType("tensorrt")
    core.__dict__.update({name: value for name, value in globals().items() if not name.startswith("_")})
    spec = importlib.util.spec_from_file_location(
        "tensorrt.plugin", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    plugin = importlib.util.module_from_spec(spec)
    core.plugin = plugin  # type: ignore[attr-defined]
    sys.modules |= {"tensorrt": core, "tensorrt.plugin": plugin}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # escape sequences in its docstrings
            spec.loader.exec_module(plugin)
        yield plugin
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "tensorrt"]:
            del sys.modules[name]
