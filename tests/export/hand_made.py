"""Small graphs written by hand, changed by a pass and run."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from antiphon.plugins import onnx_domain
from antiphon.runtime.engines.onnxruntime.sessions import make_session


def parse(text: str, *functions: str) -> ir.Model:
    """The model of a graph in ONNX's text form, with the named functions of ours and its shapes inferred."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 24, "ai.antiphon" : 1]> {text}')
    model.functions.extend(onnx_domain.function(name) for name in functions)
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model))


def execute(model: ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    return make_session(ir.serde.serialize_model(model).SerializeToString()).run(None, feeds)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
