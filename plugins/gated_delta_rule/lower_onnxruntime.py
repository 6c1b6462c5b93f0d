"""GatedDeltaRule on ONNX Runtime: LinearAttention, and nodes for the gates."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from ..lowering import Attributes, Emitter, row_mask
from .reference import EPSILON


def lower(node: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """Lower to `com.microsoft.LinearAttention` with the gated delta rule.

    The sizes of query and state must be known.

    x / sqrt(sum x^2 + epsilon) is one RMSNormalization with epsilon / dim and the weight 1 / sqrt(dim).
    Padding rows neither decay nor write.
    """
    query, key, value, a, b, dt_bias, decay_scale, past, query_length = node.inputs
    key_heads, value_heads = (node.attributes[name].as_int() for name in ("key_heads", "value_heads"))
    assert (
        past is not None
        and past.shape is not None
        and isinstance(past.shape[2], int)
        and isinstance(past.shape[3], int)
    )
    emit, key_dim = Emitter(), past.shape[2]
    query, key, value = _normalised(
        emit, query, key, value, (key_heads, key_dim), value_heads * past.shape[3]
    )
    tokens = emit("Shape", [a], {"start": 1, "end": 2})
    is_row, zero = row_mask(emit, tokens, query_length), emit("Constant", [], {"value_float": 0.0})
    gates = emit.many("LinearAttentionGate", [a, dt_bias, decay_scale, b], None, "com.microsoft", 2)
    decay, rate = (emit("Where", [is_row, gate, zero]) for gate in gates)
    attributes: Attributes = {
        "q_num_heads": key_heads,
        "kv_num_heads": value_heads,
        "update_rule": "gated_delta",
    }
    y, present = emit.many(
        "LinearAttention", [query, key, value, past, decay, rate], attributes, "com.microsoft", 2
    )
    return emit.nodes, [emit("Where", [is_row, y, zero]), present]


def _normalised(
    emit: Emitter,
    query: ir.Value | None,
    key: ir.Value | None,
    value: ir.Value | None,
    key_shape: tuple[int, int],
    value_size: int,
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """L2-normalised query and key of shape (heads, dim), and the value.

    Query and key are normalised together when query, key and value are the outputs of one Split.
    """
    heads, dim = key_shape
    weight = emit("Constant", [], {"value_floats": [dim**-0.5] * dim})

    def normalise(rows: ir.Value | None, count: int) -> ir.Value:
        by_head = emit("Reshape", [rows, emit("Constant", [], {"value_ints": [0, 0, count, dim]})])
        normed = emit("RMSNormalization", [by_head, weight], {"axis": -1, "epsilon": EPSILON / dim})
        return emit("Reshape", [normed, emit("Constant", [], {"value_ints": [0, 0, count * dim]})])

    def split(rows: ir.Value | None, sizes: list[int]) -> Sequence[ir.Value]:
        return emit.many(
            "Split", [rows, emit("Constant", [], {"value_ints": sizes})], {"axis": 2}, "", len(sizes)
        )

    source = query.producer() if query is not None else None
    if source is None or source.op_type != "Split" or list(source.outputs) != [query, key, value]:
        return normalise(query, heads), normalise(key, heads), value
    both, value = split(source.inputs[0], [2 * heads * dim, value_size])
    query, key = split(normalise(both, 2 * heads), [heads * dim] * 2)
    return query, key, value
