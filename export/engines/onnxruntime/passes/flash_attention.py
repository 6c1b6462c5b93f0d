"""Replaces the encoders' attention by a kernel that never stores all scores at once."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase, RewriteRuleSet


class _FlashAttention(RewriteRuleClassBase):
    """The rewrite rule. Those of onnxscript (ort_fusions.mha) match attention as products and a softmax."""

    def pattern(self, op: Any, query: Any, key: Any, value: Any, shape: Any) -> Any:
        heads = op.Attention(query, key, value, _outputs=["heads"])
        return op.Reshape(op.Transpose(heads, perm=[0, 2, 1, 3]), shape, _outputs=["rows"])

    def check(
        self,
        context: Any,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        shape: ir.Value,
        heads: ir.Value,
        rows: ir.Value,
    ) -> MatchResult:
        result = MatchResult()
        attributes = _attributes(heads)
        if attributes.get_int("is_causal", 0) or attributes.get_float("softcap", 0.0):
            return result.fail("causality or soft cap", heads)
        if query.shape is None or not isinstance(query.shape[1], int):
            return result.fail("the number of heads is not known", query)
        if key.shape != query.shape or value.shape != query.shape:
            return result.fail("attention over other rows, or with fewer heads for the keys", key)
        if rows.shape is None or len(rows.shape) != 3 or rows.is_graph_output():
            return result.fail("no rows of [batch, tokens, heads * dim] inside the graph", rows)
        return result

    def rewrite(
        self,
        op: Any,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        shape: ir.Value,
        heads: ir.Value,
        rows: ir.Value,
    ) -> ir.Value:
        assert query.shape is not None
        allowzero = _attributes(rows).get_int("allowzero", 0)
        turned = [op.Transpose(given, perm=[0, 2, 1, 3]) for given in (query, key, value)]
        flat = [op.Reshape(given, shape, allowzero=allowzero) for given in turned]
        scale = {"scale": _attributes(heads).get_float("scale")} if "scale" in _attributes(heads) else {}
        attended: ir.Value = op.MultiHeadAttention(
            *flat, num_heads=query.shape[1], **scale, _domain="com.microsoft"
        )
        return attended


RULES = RewriteRuleSet([_FlashAttention.rule()])


def flash_attention(model: ir.Model) -> int:
    """Replace unmasked `Attention` over [batch, heads, tokens, dim] by `com.microsoft.MultiHeadAttention`.

    For query, key and value of [batch, tokens, heads * dim] that kernel computes the scores in blocks. All
    scores of an image of 8,000 patches would need 4 GB per layer of 16 heads. Its result has the same layout,
    so the transposition and the reshape after `Attention` are removed. Returns the number of replaced nodes.
    """
    return RULES.apply_to_model(model)


def _attributes(value: ir.Value) -> Any:
    """The attributes of the node that produces `value`."""
    node = value.producer()
    assert node is not None
    return node.attributes
