"""Attention on ONNX Runtime: GroupQueryAttention, whose past and present may share one buffer."""

from __future__ import annotations

import onnx_ir as ir

from ..lowering import Attributes, Emitter, row_mask
from ..op_form import OpForm

HEAD_MULTIPLE = 8
"""GroupQueryAttention (ONNX Runtime 1.32, CPU) takes head sizes that are multiples of it,
and says so at the first run.
"""


def refuses(form: OpForm) -> str | None:
    """Why GroupQueryAttention cannot run `form`; None where it can."""
    head_dim = form.shape("past_key")[-1]
    if head_dim % HEAD_MULTIPLE:
        return f"its heads have {head_dim} values, expected a multiple of {HEAD_MULTIPLE}"
    return None


def lower(node: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """Lower to `com.microsoft.GroupQueryAttention`, without its rotary embedding.

    It writes the cache in place when past and present are one buffer. The kernel does not support padding:
    given `query_length`, it would write the rows too early, over old ones. It gets `tokens` instead, so
    padding rows land after the visible cache (the capacity must hold past_length + tokens), and their result
    is set to zero here. The kernel accepts a batch of several rows only for single-token steps or an empty
    cache, so the runtime prefills one stream at a time.
    """
    query, key, value, past_key, past_value, past_length, query_length = node.inputs
    attributes: Attributes = {
        "num_heads": node.attributes["num_heads"].as_int(),
        "kv_num_heads": node.attributes["kv_num_heads"].as_int(),
        "do_rotary": 0,
    }
    emit = Emitter()
    # Layer-independent nodes: common subexpression elimination leaves one copy per graph.
    one, one_int = emit("Constant", [], {"value_int": 1}), ir.DataType.INT32
    tokens = emit("Shape", [_shared_shape(query)], {"start": 1, "end": 2})
    total = emit("Cast", [emit("Add", [past_length, tokens])], {"to": one_int})
    longest = emit("ReduceMax", [total], {"keepdims": 0})
    last = emit("Sub", [total, emit("Cast", [one], {"to": one_int})])
    inputs = [query, key, value, past_key, past_value, last, longest]
    attended, present_key, present_value = emit.many(
        "GroupQueryAttention", inputs, attributes, "com.microsoft", 3
    )
    y = emit(
        "Where", [row_mask(emit, tokens, query_length), attended, emit("Constant", [], {"value_float": 0.0})]
    )
    return emit.nodes, [y, present_key, present_value]


def _shared_shape(query: ir.Value | None) -> ir.Value | None:
    """A value [batch, tokens, ...]: the rotary table if there is one, because all layers share it; else
    query."""
    rotary = query.producer() if query is not None else None
    return rotary.inputs[1] if rotary is not None and rotary.op_type == "RotaryEmbedding" else query
