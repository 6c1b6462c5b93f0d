"""Fuse a residual addition and the norm behind it."""

from __future__ import annotations

import onnx_ir as ir

DEFAULT_EPSILON = 1e-5
"""Of RMSNormalization, where the attribute is left out."""


def fuse_skip_norm(model: ir.Model) -> int:
    """Add followed by RMSNormalization over the last axis becomes `com.microsoft.SkipSimplifiedLayerNormalization`.

    The kernel also returns the sum, which is the next residual. Only additions of two equal three-dimensional shapes qualify: the kernel broadcasts nothing.
    """
    changed = 0
    for norm in [node for node in model.graph if node.op_type == "RMSNormalization" and node.domain == ""]:
        summed = norm.inputs[0]
        add = summed.producer() if summed is not None else None
        if summed is None or add is None or add.op_type != "Add" or summed.is_graph_output() or not _same_shape(add) or not _over_last_axis(norm):
            continue
        epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else DEFAULT_EPSILON
        fused = ir.node(
            "SkipSimplifiedLayerNormalization", [add.inputs[0], add.inputs[1], norm.inputs[1]], {"epsilon": epsilon}, domain="com.microsoft", num_outputs=4
        )
        for old, new in ((norm.outputs[0], fused.outputs[0]), (summed, fused.outputs[3])):
            new.shape, new.type, new.name = old.shape, old.type, old.name
        model.graph.insert_before(_first_use(model, summed), fused)
        norm.outputs[0].replace_all_uses_with(fused.outputs[0], replace_graph_outputs=True)
        summed.replace_all_uses_with(fused.outputs[3])
        model.graph.remove([norm, add], safe=True)
        for unused in (1, 2):
            fused.outputs[unused].name = ""
        changed += 1
    if changed:
        model.opset_imports.setdefault("com.microsoft", 1)
    return changed


def _same_shape(add: ir.Node) -> bool:
    """Whether both summands are known to have one three-dimensional shape; two unknown sizes are not known to be equal."""
    first, second = (value.shape if value is not None else None for value in add.inputs)
    return first is not None and len(first) == 3 and first == second and all(isinstance(size, int) or size.value is not None for size in first)


def _over_last_axis(norm: ir.Node) -> bool:
    weight = norm.inputs[1]
    axis = norm.attributes["axis"].as_int() if "axis" in norm.attributes else -1
    return axis in (-1, 2) and weight is not None and weight.shape is not None and len(weight.shape) == 1


def _first_use(model: ir.Model, value: ir.Value) -> ir.Node:
    users = {use.node for use in value.uses()}
    return next(node for node in model.graph if node in users)
