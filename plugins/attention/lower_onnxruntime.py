"""Attention on ONNX Runtime: GroupQueryAttention, whose past and present may share one buffer."""

from __future__ import annotations

import onnx_ir as ir


def lower(node: ir.Node) -> list[ir.Node]:
    """`com.microsoft.GroupQueryAttention` without its own rotary embedding; it writes the cache in place when past and present are one buffer.

    The lengths it wants are computed beside every node; common subexpression elimination leaves one copy per graph. The CPU kernel
    takes several rows (batch) only for single-token steps or an empty cache: the runtime prefills one stream at a time.
    """
    query, key, value, past_key, past_value, past_length, query_length = node.inputs
    attributes = {"num_heads": node.attributes["num_heads"].as_int(), "kv_num_heads": node.attributes["kv_num_heads"].as_int(), "do_rotary": 0}
    total = ir.node("Add", [past_length, query_length])
    total_int = ir.node("Cast", [total.outputs[0]], {"to": ir.DataType.INT32})
    longest = ir.node("ReduceMax", [total_int.outputs[0]], {"keepdims": 0})
    one = ir.node("Constant", [], {"value_int": 1})
    one_int = ir.node("Cast", [one.outputs[0]], {"to": ir.DataType.INT32})
    last = ir.node("Sub", [total_int.outputs[0], one_int.outputs[0]])
    inputs = [query, key, value, past_key, past_value, last.outputs[0], longest.outputs[0]]
    attention = ir.node("GroupQueryAttention", inputs, attributes, domain="com.microsoft", num_outputs=3)
    return [total, total_int, longest, one, one_int, last, attention]
