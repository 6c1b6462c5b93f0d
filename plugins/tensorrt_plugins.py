"""Compiled kernels in TensorRT engines: quick-deployable plugins with ahead-of-time code.

Every launch of the contract becomes an op `antiphon::NAME`. Its PTX, grid and scalars go into the engine, so
that the engine needs no Python. Uses the Python package tensorrt.plugin of TensorRT 11.4, imported on first
use. TensorRT-RTX 1.7 has no such package.

Plugins accept neither bool nor uint8 tensors: both are passed as INT8, byte for byte. Programs that update an
input in place need the builder's preview feature ALIASED_PLUGIN_IO_10_03. A program's `when` condition is not
checked for sizes that vary: choose an optimisation profile that satisfies it. The profile must begin at 1,
because a node cannot skip a launch without blocks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import Parameter, Signature
from types import GenericAlias
from typing import Any, Protocol

from ..runtime.bundle.errors import AntiphonError, require_extra
from ..runtime.kernels.contract import Image, Program, image_key
from ..runtime.kernels.expression import FUNCTIONS, evaluate, names
from .tensorrt_nodes import Node, fixed_sizes, nodes

NAMESPACE = "antiphon"
_AUTOTUNE_TYPES = {
    "bfloat16": "BF16",
    "float16": "FP16",
    "float32": "FP32",
    "float8_e4m3fn": "FP8",
    "int64": "INT64",
    "int32": "INT32",
    "int8": "INT8",
    "uint8": "INT8",
    "bool": "INT8",
}
_DATA_TYPES = {**_AUTOTUNE_TYPES, "float16": "HALF", "float32": "FLOAT"}
"""The names of the types in tensorrt.DataType."""
_registered: dict[str, tuple[Node, str]] = {}
"""Node and PTX hash of each op; TensorRT keeps a plugin until the process ends."""


class Library(Protocol):
    """The part of `runtime.kernels.library.KernelLibrary` that this module uses."""

    @property
    def target(self) -> str: ...

    @property
    def images(self) -> Mapping[str, Image]: ...

    def ptx(self, key: str) -> str: ...


def register_program(library: Library, program: Program) -> tuple[Node, ...]:
    """Register an op per launch of `program`, compiled in `library`, and return the nodes.

    Registered ops stay.

    Raises AntiphonError if TensorRT is missing, does not support the program, or has another version of the
    op.
    """
    made = nodes(program, library.target)
    for node in made:
        key = image_key(program, node.launch)
        if key not in library.images:
            raise AntiphonError(
                f"{program.op} ({program.name}) is not compiled for {library.target}; run: "
                f"antiphon plugins compile --target {library.target}"
            )
        version = (node, library.images[key].ptx_sha256)
        if node.name not in _registered:
            _register(node, library.images[key], lambda key=key: library.ptx(key))  # type: ignore[misc]
            _registered[node.name] = version
        elif _registered[node.name] != version:
            raise AntiphonError(
                f"Another version of {NAMESPACE}::{node.name} is registered in TensorRT, which keeps it; "
                "start a new process."
            )
    return made


def add_program(
    network: Any, library: Library, program: Program, inputs: Mapping[str, Any], attributes: Mapping[str, int]
) -> dict[str, Any]:
    """Add the nodes of `program` to a tensorrt.INetworkDefinition and return its output ITensors by name.

    `inputs` are ITensors of the contract's types (INT8 for bool and uint8). Outputs have the contract's
    shapes: leading axes of `*rows` become one axis. An output in place is the memory of its input: where both
    are inputs and outputs of the network, bind them to one address. Raises AntiphonError if inputs or
    attributes do not fit, or if a size varies that must be constant.
    """
    trt = _tensorrt("tensorrt")
    wanted, found = {spec.name for spec in program.inputs} | set(program.attributes), {*inputs, *attributes}
    if wanted != found:
        raise AntiphonError(
            f"{program.op} ({program.name}) takes {', '.join(sorted(wanted))}; "
            f"found {', '.join(sorted(found))}."
        )
    for spec in program.inputs:
        if inputs[spec.name].dtype != _data_type(trt, spec.dtype):
            raise AntiphonError(
                f"{program.op} ({program.name}) takes {spec.name} as {_data_type(trt, spec.dtype)}; "
                f"found {inputs[spec.name].dtype}."
            )
    fixed = fixed_sizes(program, {name: tuple(tensor.shape) for name, tensor in inputs.items()}, attributes)
    for condition in program.when.split(" and "):
        if names(condition) <= set(fixed) and not evaluate(condition, fixed):
            raise AntiphonError(f"{program.op} ({program.name}) is for {program.when}.")
    held = dict(inputs)
    for node in register_program(library, program):
        for name in node.fixed:
            if name not in fixed:
                raise AntiphonError(
                    f"{NAMESPACE}::{node.name} needs {name} to be constant in the network, "
                    "since no input of its launch shows it."
                )
        define = getattr(getattr(_tensorrt("tensorrt.plugin").op, NAMESPACE), node.name)
        request = define(
            *(held[name] for name in node.launch.inputs),
            **{name: int(fixed[name]) for name in node.attributes},
        )
        layer = network.add_plugin(request, aot=True)
        for place, name in enumerate(node.launch.outputs):
            held[name] = layer.get_output(place)
            if name in node.aliases:  # later readers of the input read what this node wrote
                held[program.tensor(name).alias] = held[name]
    return {spec.name: held[spec.name] for spec in program.outputs}


def _register(node: Node, image: Image, ptx: Callable[[], str]) -> None:
    """Register a node's three functions with tensorrt.plugin: its outputs, its types and its launch."""
    trt, plugin = _tensorrt("tensorrt"), _tensorrt("tensorrt.plugin")
    program, launch = node.program, node.launch
    functions = {
        "ceil_div": _either(plugin.cdiv, "ceil_div"),
        "min": _either(plugin.min, "min"),
        "max": _either(plugin.max, "max"),
    }
    count, specs = len(launch.inputs), [program.tensor(name) for name in (*launch.inputs, *launch.outputs)]

    def calculator(inputs: tuple[Any, ...], attributes: Mapping[str, int]) -> Callable[[str], Any]:
        sizes = node.sizes(
            [[_Size(size) for size in desc.shape_expr] for desc in inputs], attributes, functions
        )

        def calculate(text: str) -> Any:
            value = evaluate(text, sizes, functions)
            return value.expression if isinstance(value, _Size) else plugin.ShapeExpr(value)

        return calculate

    def describe(*inputs: Any, **attributes: int) -> tuple[Any, ...]:
        calculate = calculator(inputs, attributes)
        return tuple(
            inputs[node.aliases[spec.name]].aliased()
            if spec.alias
            else plugin.from_shape_expr(
                tuple(calculate(size) for size in spec.shape), _data_type(trt, spec.dtype)
            )
            for spec in specs[count:]
        )

    def autotune(*descriptions: Any) -> list[Any]:
        return [
            plugin.AutoTuneCombination(", ".join(_AUTOTUNE_TYPES[spec.dtype] for spec in specs), "LINEAR")
        ]

    def implement(*arguments: Any) -> tuple[str, str, Any, Any]:
        calculate = calculator(
            arguments[:count], dict(zip(node.attributes, arguments[count:-2], strict=True))
        )
        x, y, z = (calculate(size) for size in launch.grid)
        scalars = plugin.SymIntExprs(len(launch.scalars))
        for place, scalar in enumerate(launch.scalars):
            scalars[place] = plugin.SymInt32(calculate(scalar.value))
        shape = plugin.KernelLaunchParams(
            grid_x=x, grid_y=y, grid_z=z, block_x=32 * image.warps, shared_mem=image.shared_bytes
        )
        return image.entry, ptx(), shape, scalars

    # tensorrt.plugin reads parameters and types from the signature only, so no source code is generated.
    # A launch may take a tensor twice.
    unique = [
        f"{name}_{place}" if name in launch.inputs[:place] else name
        for place, name in enumerate(launch.inputs)
    ]
    inputs = dict.fromkeys(unique, plugin.TensorDesc)
    attributes = dict.fromkeys(node.attributes, int)
    outputs = {"outputs": GenericAlias(tuple, (plugin.TensorDesc,))}
    described = GenericAlias(tuple, (plugin.TensorDesc,) * len(launch.outputs))
    implemented = GenericAlias(tuple, (str, str, plugin.KernelLaunchParams, plugin.SymIntExprs))
    op = f"{NAMESPACE}::{node.name}"
    plugin.register(op)(_typed(describe, inputs | attributes, described))
    plugin.autotune(op)(_typed(autotune, inputs | outputs, GenericAlias(list, (plugin.AutoTuneCombination,))))
    plugin.aot_impl(op)(_typed(implement, inputs | attributes | outputs | {"tactic": int}, implemented))


def _typed(function: Any, types: Mapping[str, Any], result: Any) -> Any:
    """`function` with the given signature for `inspect`."""
    parameters = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, annotation=kind) for name, kind in types.items()
    ]
    function.__signature__ = Signature(parameters, return_annotation=result)
    return function


class _Size:
    """A tensorrt.plugin.ShapeExpr that accepts plain integers on both sides; ShapeExpr accepts them on the
    right only."""

    def __init__(self, expression: Any) -> None:
        self.expression = expression

    def of(self, operation: Callable[[Any, Any], Any], left: Any, right: Any) -> _Size:
        kind = type(self.expression)
        return _Size(
            operation(*(side.expression if isinstance(side, _Size) else kind(side) for side in (left, right)))
        )

    def __add__(self, other: Any) -> _Size:
        return self.of(operator.add, self, other)

    def __radd__(self, other: int) -> _Size:
        return self.of(operator.add, other, self)

    def __sub__(self, other: Any) -> _Size:
        return self.of(operator.sub, self, other)

    def __rsub__(self, other: int) -> _Size:
        return self.of(operator.sub, other, self)

    def __mul__(self, other: Any) -> _Size:
        return self.of(operator.mul, self, other)

    def __rmul__(self, other: int) -> _Size:
        return self.of(operator.mul, other, self)

    def __floordiv__(self, other: Any) -> _Size:
        return self.of(operator.floordiv, self, other)

    def __rfloordiv__(self, other: int) -> _Size:
        return self.of(operator.floordiv, other, self)


def _either(symbolic: Callable[[Any, Any], Any], name: str) -> Callable[[Any, Any], Any]:
    """`symbolic` for sizes, and plain arithmetic for two integers, which TensorRT's functions refuse."""

    def apply(left: Any, right: Any) -> Any:
        size = next((side for side in (left, right) if isinstance(side, _Size)), None)
        return FUNCTIONS[name](left, right) if size is None else size.of(symbolic, left, right)

    return apply


def _data_type(trt: Any, dtype: str) -> Any:
    return getattr(trt.DataType, _DATA_TYPES[dtype])


def _tensorrt(module: str) -> Any:
    require_extra("tensorrt", "A TensorRT engine with Antiphon's kernels", "tensorrt")
    return import_module(module)
