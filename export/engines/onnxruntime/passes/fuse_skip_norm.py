"""Fuses a residual addition and the norm after it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, RewriteRuleSet

DEFAULT_EPSILON = 1e-5
"""The default of RMSNormalization."""
FUSED = "SkipSimplifiedLayerNormalization"
"""An operator of ONNX Runtime with the outputs norm, mean, inverse standard deviation and sum."""


class _SkipNorm(RewriteRuleClassBase):
    """The rewrite rule.

    The rule of onnxscript (ort_fusions.skip_normalization) matches another operator, ONNX Runtime's
    SimplifiedLayerNormalization, and also fuses sums that are graph outputs.
    """

    def pattern(self, op: Any, first: Any, second: Any, weight: Any) -> Any:
        summed = op.Add(first, second, _outputs=["summed"])
        return op.RMSNormalization(summed, weight, _outputs=["normed"]), summed

    def check(
        self,
        context: Any,
        first: ir.Value,
        second: ir.Value,
        weight: ir.Value,
        summed: ir.Value,
        normed: ir.Value,
    ) -> MatchResult:
        result = MatchResult()
        if summed.is_graph_output():
            return result.fail("the sum is an output of the graph", summed)
        if not _same_shape(first, second):
            return result.fail("the kernel broadcasts nothing", summed)
        if not _over_last_axis(_node(normed), weight):
            return result.fail("the kernel norms the last axis", normed)
        return result

    def rewrite(
        self, op: Any, first: ir.Value, second: ir.Value, weight: ir.Value, summed: ir.Value, normed: ir.Value
    ) -> tuple[ir.Value, ir.Value]:
        epsilon = _node(normed).attributes.get_float("epsilon", DEFAULT_EPSILON)
        outputs = getattr(op, FUSED)(
            first, second, weight, epsilon=epsilon, _outputs=4, _domain="com.microsoft"
        )
        return outputs[0], outputs[3]


RULES = RewriteRuleSet([_SkipNorm.rule()])


def fuse_skip_norm(model: ir.Model) -> int:
    """Replace Add, then RMSNormalization over the last axis, by SkipSimplifiedLayerNormalization.

    The kernel also returns the sum, which is the next residual. Both summands must have the same
    three-dimensional shape, because the kernel does not broadcast. Returns the number of replaced pairs.
    """
    changed = RULES.apply_to_model(model)
    if changed:
        model.graph.sort()  # the new node replaces the norm, which can be after other readers of the sum
    for node in model.graph.all_nodes():
        if node.op_type == FUSED:
            for unused in node.outputs[1:3]:
                unused.name = ""  # the kernel computes every named output, and the rewriter names all
    return changed


def _node(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node


def _same_shape(first: ir.Value, second: ir.Value) -> bool:
    """Whether both summands have the same three-dimensional shape. Two unknown sizes count as different."""
    shape = first.shape
    return (
        shape is not None
        and len(shape) == 3
        and shape == second.shape
        and all(isinstance(size, int) or size.value is not None for size in shape)
    )


def _over_last_axis(norm: ir.Node, weight: ir.Value) -> bool:
    return (
        norm.attributes.get_int("axis", -1) in (-1, 2) and weight.shape is not None and len(weight.shape) == 1
    )
