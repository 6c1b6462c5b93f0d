"""The domain `ai.antiphon` in ONNX: operator schemas and model-local functions."""

from __future__ import annotations

from importlib import import_module

import onnx
import onnx.defs
import onnx.parser

# Imported before our schemas are registered: it indexes all ops by name, and our names that equal standard
# ones break it.
import onnx.reference  # noqa: F401

from .registry import DOMAIN, DOMAIN_VERSION, FOLDERS, Op

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]


def schema(op: Op) -> onnx.defs.OpSchema:
    """The registered ONNX schema of `op`; registers it on first use."""
    if not onnx.defs.has(op.name, DOMAIN):
        parameter = onnx.defs.OpSchema.FormalParameter
        kinds = {"int": onnx.defs.OpSchema.AttrType.INT, "float": onnx.defs.OpSchema.AttrType.FLOAT}
        onnx.defs.register_schema(
            onnx.defs.OpSchema(
                op.name,
                DOMAIN,
                DOMAIN_VERSION,
                op.doc,
                inputs=[parameter(name, kind) for name, kind in op.inputs],
                outputs=[parameter(name, kind) for name, kind in op.outputs],
                type_constraints=[("T", _FLOATS, "floating point tensors")],
                attributes=[
                    onnx.defs.OpSchema.Attribute(name, kinds[kind], name, required=True)
                    for name, kind in op.attributes
                ],
            )
        )
    return onnx.defs.get_schema(op.name, DOMAIN_VERSION, DOMAIN)


def function(name: str) -> onnx.FunctionProto:
    """The model-local function that computes op `name` in any ONNX engine."""
    module = import_module(f".{FOLDERS[name]}.function", __package__)
    return onnx.parser.parse_function(module.FUNCTION)
