"""Fuse a residual addition and the norm behind it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, RewriteRuleSet

DEFAULT_EPSILON = 1e-5
"""Of RMSNormalization, where the attribute is left out."""
FUSED = "SkipSimplifiedLayerNormalization"
"""Of ONNX Runtime: its outputs are the norm, mean, inverse standard deviation, and the sum."""


class _SkipNorm(RewriteRuleClassBase):
    """The rule that onnxscript ships (ort_fusions.skip_normalization) matches SimplifiedLayerNormalization, an operator of ONNX Runtime, and fuses
    sums that are outputs of the graph too."""

    def pattern(self, op: Any, first: Any, second: Any, weight: Any) -> Any:
        summed = op.Add(first, second, _outputs=["summed"])
        return op.RMSNormalization(summed, weight, _outputs=["normed"]), summed

    def check(self, context: Any, first: ir.Value, second: ir.Value, weight: ir.Value, summed: ir.Value, normed: ir.Value) -> MatchResult:
        result = MatchResult()
        if summed.is_graph_output():
            return result.fail("the sum is an output of the graph", summed)
        if not _same_shape(first, second):
            return result.fail("the kernel broadcasts nothing", summed)
        if not _over_last_axis(_node(normed), weight):
            return result.fail("the kernel norms the last axis", normed)
        return result

    def rewrite(self, op: Any, first: ir.Value, second: ir.Value, weight: ir.Value, summed: ir.Value, normed: ir.Value) -> tuple[ir.Value, ir.Value]:
        epsilon = _node(normed).attributes.get_float("epsilon", DEFAULT_EPSILON)
        outputs = getattr(op, FUSED)(first, second, weight, epsilon=epsilon, _outputs=4, _domain="com.microsoft")
        return outputs[0], outputs[3]


RULES = RewriteRuleSet([_SkipNorm.rule()])


def fuse_skip_norm(model: ir.Model) -> int:
    """Add followed by RMSNormalization over the last axis becomes `com.microsoft.SkipSimplifiedLayerNormalization`.

    The kernel also returns the sum, which is the next residual. Only additions of two equal three-dimensional shapes qualify: the kernel broadcasts nothing.
    """
    changed = RULES.apply_to_model(model)
    if changed:
        model.graph.sort()  # a rule puts the new node in the norm's place, which may lie behind other readers of the sum
    for node in model.graph.all_nodes():
        if node.op_type == FUSED:
            for unused in node.outputs[1:3]:
                unused.name = ""  # the rewriter names them, and the kernel would compute them
    return changed


def _node(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _same_shape(first: ir.Value, second: ir.Value) -> bool:
    """Whether both summands are known to have one three-dimensional shape; two unknown sizes are not known to be equal."""
    shape = first.shape
    return shape is not None and len(shape) == 3 and shape == second.shape and all(isinstance(size, int) or size.value is not None for size in shape)


def _over_last_axis(norm: ir.Node, weight: ir.Value) -> bool:
    return norm.attributes.get_int("axis", -1) in (-1, 2) and weight.shape is not None and len(weight.shape) == 1
