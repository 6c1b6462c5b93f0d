"""CausalConvState on ONNX Runtime: one product per tap, in the channels-last layout."""

from __future__ import annotations

import onnx_ir as ir

from ..lowering import Emitter, row_mask


def lower(node: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """A sum of `kernel` shifted products, then SiLU. The weight's shape must be known.

    ONNX Runtime folds the slices of the weight when it loads the graph. `com.microsoft.CausalConvWithState`
    is not used: for this layout and 8192 channels its kernel is four times slower at 256 tokens and twice as
    slow at one token, and padding rows change its state. Conv is slow for one group per channel: 40 to 300
    microseconds at one token.
    """
    x, weight, past, query_length = node.inputs
    assert weight is not None and weight.shape is not None and isinstance(weight.shape[2], int)
    kernel, emit = weight.shape[2], Emitter()
    axis, zero = emit("Constant", [], {"value_ints": [1]}), emit("Constant", [], {"value_int": 0})
    rows = emit("Concat", [past, x], {"axis": 1})  # [batch, kernel - 1 + tokens, channels]
    taps = emit("Transpose", [weight], {"perm": [2, 1, 0]})  # [kernel, 1, channels]
    total: ir.Value | None = None
    for tap in range(kernel):
        first, end = (emit("Constant", [], {"value_ints": [place]}) for place in (tap, tap + 1 - kernel))
        shifted = x if tap == kernel - 1 else emit("Slice", [rows, first, end, axis])
        product = emit(
            "Mul", [shifted, emit("Gather", [taps, emit("Constant", [], {"value_int": tap})], {"axis": 0})]
        )
        total = product if total is None else emit("Add", [total, product])
    activated = emit("QuickGelu", [total], {"alpha": 1.0}, domain="com.microsoft")
    tokens = emit("Shape", [x], {"start": 1, "end": 2})
    y = emit(
        "Where", [row_mask(emit, tokens, query_length), activated, emit("Constant", [], {"value_float": 0.0})]
    )
    # The last rows of past|x[:query_length]; these indices are the same in every layer.
    last_rows = emit(
        "Range",
        [zero, emit("Constant", [], {"value_int": kernel - 1}), emit("Constant", [], {"value_int": 1})],
    )
    place = emit(
        "Unsqueeze",
        [
            emit("Add", [emit("Unsqueeze", [query_length, axis]), last_rows]),
            emit("Constant", [], {"value_ints": [2]}),
        ],
    )
    present = emit("GatherND", [rows, place], {"batch_dims": 1})
    return emit.nodes, [y, present]
