"""A graph with one node of `ai.antiphon`, run in plain ONNX Runtime: with its function, and lowered."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from antiphon.export.engines.onnxruntime.lower import lowering
from antiphon.export.engines.onnxruntime.passes.replace_ops import replace_ops
from antiphon.plugins import onnx_domain
from antiphon.plugins.registry import DOMAIN, DOMAIN_VERSION, OPS
from antiphon.runtime.engines.onnxruntime.library import onnxruntime
from antiphon.runtime.engines.onnxruntime.sessions import make_session

KINDS = {
    "T": onnx.TensorProto.FLOAT,
    "tensor(float)": onnx.TensorProto.FLOAT,
    "tensor(int64)": onnx.TensorProto.INT64,
    "tensor(bool)": onnx.TensorProto.BOOL,
    "tensor(uint8)": onnx.TensorProto.UINT8,
}


Shapes = tuple[tuple[str, tuple[int | None, ...]], ...]


def graph(op: str, shapes: Shapes = (), **attributes: int) -> onnx.ModelProto:
    """One node, its function beside it;
    inputs and outputs have the names of the registry and no shape but those given.
    """
    found = OPS[op]
    onnx_domain.schema(found)
    node = onnx.helper.make_node(
        op,
        [name for name, _ in found.inputs],
        [name for name, _ in found.outputs],
        domain=DOMAIN,
        **attributes,
    )
    known = dict(shapes)
    values = [
        [onnx.helper.make_tensor_value_info(name, KINDS[kind], known.get(name)) for name, kind in group]
        for group in (found.inputs, found.outputs)
    ]
    opsets = [onnx.helper.make_opsetid("", 24), onnx.helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    return onnx.helper.make_model(
        onnx.helper.make_graph([node], op, *values),
        opset_imports=opsets,
        functions=[onnx_domain.function(op)],
        ir_version=10,
    )


@cache
def _session(
    op: str, is_lowered: bool, attributes: tuple[tuple[str, int], ...], shapes: Shapes = ()
) -> onnxruntime.InferenceSession:
    model = graph(op, shapes, **dict(attributes))
    if is_lowered:
        lowered = ir.serde.deserialize_model(model)
        assert replace_ops(lowered, {op: lowering(op)}) == 1
        model = ir.serde.serialize_model(lowered)
    return make_session(model.SerializeToString())


def run_function(op: str, *inputs: np.ndarray, **attributes: int) -> Any:
    """The outputs of the portable graph; a single output comes bare."""
    return _run(_session(op, False, tuple(attributes.items())), op, inputs)


def run_lowered(op: str, *inputs: np.ndarray, **attributes: int) -> Any:
    """The outputs of the graph lowered for ONNX Runtime, which is told what a built graph knows:
    the shapes of weights, and of states but for the batch.
    """
    arrays = {name: array for (name, _), array in zip(OPS[op].inputs, inputs, strict=True)}
    known: list[tuple[str, tuple[int | None, ...]]] = (
        [("weight", arrays["weight"].shape)] if "weight" in arrays else []
    )
    known += [("past", (None, *arrays["past"].shape[1:]))] if "past" in arrays else []
    return _run(_session(op, True, tuple(attributes.items()), tuple(known)), op, inputs)


def _run(session: onnxruntime.InferenceSession, op: str, inputs: tuple[np.ndarray, ...]) -> Any:
    outputs = session.run(
        None, {name: value for (name, _), value in zip(OPS[op].inputs, inputs, strict=True)}
    )
    return outputs[0] if len(outputs) == 1 else outputs
