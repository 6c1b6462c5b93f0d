"""Exports a stage to its portable ONNX graph. Tracing on the meta device allocates no weights."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx_ir as ir
import onnxscript.optimizer
import torch
from onnxscript import values as onnxscript_values
from torch import Tensor

from ..graphs.stage import Stage
from ..plugins import onnx_domain
from ..plugins.registry import DOMAIN, DOMAIN_VERSION, FOLDERS, OPS, Op
from ..runtime.bundle.version import VERSION
from .op_forms import example_arguments

OPSET, IR_VERSION = 24, 10


def export_portable(stage: Stage) -> ir.Model:
    """The portable graph of `stage`: opset 24, IR 10, initializers without data.

    Nodes of `ai.antiphon` come with their functions.
    Inputs are the stage's inputs and the states `past.NAME`, outputs the stage's outputs and the states
    `present.NAME`. Initializers have the names of the module's parameters; `export.weights.write_weights`
    adds their data.
    """
    with torch.device("meta"):
        module = stage.make_module()
    module.eval().requires_grad_(False)
    program = _trace(stage, module)
    input_names = [spec.name for spec in stage.inputs] + [f"past.{state.name}" for state in stage.states]
    output_names = [spec.name for spec in stage.outputs] + [f"present.{state.name}" for state in stage.states]
    for op in OPS.values():
        onnx_domain.schema(op)
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=input_names,
            output_names=output_names,
            custom_translation_table=_translations(),
            optimize=False,
            verbose=False,
        )
    assert exported is not None
    model = exported.model
    parameters = dict(module.named_parameters())
    _optimize(model, {f"module.{name}" for name in parameters})
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "antiphon", VERSION
    model.graph.name = stage.name
    _name_axes(stage, model)
    _keep_scopes(model)
    used = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for name in sorted(used):
        function = ir.serde.deserialize_function(onnx_domain.function(name))
        model.functions[function.identifier()] = function
    if used:
        model.opset_imports[DOMAIN] = DOMAIN_VERSION
    return model


PARAMETERS = "parameters"
"""Metadata key of a stored graph: the names of the inputs that are parameters, one per line."""


def save_portable(model: ir.Model, file: Path) -> None:
    """Store a graph of export_portable. Its parameters have no data yet, so they are stored as inputs."""
    held = [value for value in model.graph.initializers.values() if value.const_value is None]
    for value in held:
        model.graph.initializers.pop(str(value.name))
    model.graph.inputs.extend(held)
    model.metadata_props[PARAMETERS] = "\n".join(str(value.name) for value in held)
    try:
        ir.save(model, file)
    finally:
        _restore_parameters(model)


def load_portable(file: Path) -> ir.Model:
    """The graph that save_portable stored in `file`."""
    model = ir.load(file)
    _restore_parameters(model)
    return model


def _restore_parameters(model: ir.Model) -> None:
    """Turn the inputs that are parameters back into initializers without data."""
    names = set(model.metadata_props.pop(PARAMETERS).split("\n"))
    held = [value for value in model.graph.inputs if value.name in names]
    del model.graph.inputs[len(model.graph.inputs) - len(held) :]
    for value in held:
        model.graph.initializers[str(value.name)] = value


def _trace(stage: Stage, module: torch.nn.Module) -> torch.export.ExportedProgram:
    arguments = example_arguments(stage)
    shapes = [spec.shape for spec in stage.inputs] + [state.shape for state in stage.states]
    dynamic = tuple(
        {number: torch.export.Dim.DYNAMIC for number, axis in enumerate(shape) if isinstance(axis, str)}
        for shape in shapes
    )
    with torch.device("meta"), torch.no_grad():
        return torch.export.export(_Flat(module), tuple(arguments), dynamic_shapes=(dynamic,), strict=False)


def _optimize(model: ir.Model, parameters: set[str]) -> None:
    """Fold constants and remove unused nodes. Parameters have no data to fold: they are inputs meanwhile."""
    graph = model.graph
    held = [graph.initializers.pop(name) for name in list(graph.initializers) if name in parameters]
    for value in held:
        value.const_value = None
    graph.inputs.extend(held)
    onnxscript.optimizer.optimize_ir(model)
    del graph.inputs[len(graph.inputs) - len(held) :]
    for value in held:
        if value.uses():
            assert value.name is not None
            value.name = value.name.removeprefix("module.")
            graph.initializers[value.name] = value


class _Flat(torch.nn.Module):
    """Takes every tensor by position, so that modules with and without `*rest` are traced alike."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *arguments: Tensor) -> Any:
        return self.module(*arguments)


def _translations() -> dict[Any, Callable[..., Any]]:
    """The translations of Antiphon's PyTorch ops to nodes of `ai.antiphon`.

    `antiphon::FOLDER` takes the inputs of an op, then its attributes, in the order of the registry.
    """
    opset = onnxscript_values.Opset(DOMAIN, DOMAIN_VERSION)

    def translation(op: Op) -> Callable[..., Any]:
        emit = onnxscript_values.Op(opset, op.name, onnx_domain.schema(op))
        kinds = {"int": int, "float": float}

        def translate(*arguments: Any) -> Any:
            inputs, values = arguments[: len(op.inputs)], arguments[len(op.inputs) :]
            return emit(
                *inputs,
                **{
                    name: kinds[kind](value)
                    for (name, kind), value in zip(op.attributes, values, strict=True)
                },
            )

        return translate

    for folder in FOLDERS.values():
        import_module(f"..plugins.{folder}.torch_op", __package__)  # registers the op with PyTorch
    return {getattr(torch.ops.antiphon, FOLDERS[name]).default: translation(op) for name, op in OPS.items()}


def _name_axes(stage: Stage, model: ir.Model) -> None:
    """Replace the exporter's axis names of graph inputs and outputs by those of the stage."""
    shapes = [spec.shape for spec in stage.inputs] + [state.shape for state in stage.states]
    for value, shape in zip(model.graph.inputs, shapes, strict=True):
        value.shape = ir.Shape(list(shape))
    shapes = [spec.shape for spec in stage.outputs] + [state.shape for state in stage.states]
    for value, shape in zip(model.graph.outputs, shapes, strict=True):
        value.shape = ir.Shape(list(shape))


def _keep_scopes(model: ir.Model) -> None:
    """Remove the exporter's metadata, which contains file names of this machine.

    The module path of each node stays: `antiphon verify --layers` reports it.
    """
    for node in model.graph.all_nodes():
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        node.metadata_props.clear()
        node.doc_string = None
        if len(scopes) > 2:
            node.metadata_props["module"] = scopes[-2].removeprefix("module.")
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


@contextmanager
def _quiet() -> Any:
    """Suppress the exporter's output, warnings and log messages: no use to users of `antiphon build`."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
