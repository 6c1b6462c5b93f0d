"""What the lowerings for ONNX Runtime share: a list of new nodes to add to, and the mask of the rows that are no padding."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

Attributes = dict[str, int | float | str | list[int] | list[float]]


class Emitter:
    """Collects new nodes in order; a call adds one and returns its (first) output."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def __call__(self, op: str, inputs: Sequence[ir.Value | None], attributes: Attributes | None = None, domain: str = "") -> ir.Value:
        return self.many(op, inputs, attributes, domain, 1)[0]

    def many(self, op: str, inputs: Sequence[ir.Value | None], attributes: Attributes | None, domain: str, outputs: int) -> Sequence[ir.Value]:
        """As a call, for a node with several outputs."""
        self.nodes.append(ir.node(op, inputs, attributes or {}, domain=domain, num_outputs=outputs))
        return self.nodes[-1].outputs


def row_mask(emit: Emitter, tokens: ir.Value, query_length: ir.Value | None) -> ir.Value:
    """bool [batch, tokens, 1]: whether a row is no padding. `tokens` is int64 [1]. All ops write it alike, so that a graph keeps one copy."""
    one = emit("Constant", [], {"value_int": 1})
    token = emit("Range", [emit("Constant", [], {"value_int": 0}), emit("Squeeze", [tokens]), one])
    is_row = emit("Less", [token, emit("Unsqueeze", [query_length, emit("Constant", [], {"value_ints": [1]})])])
    return emit("Unsqueeze", [is_row, emit("Constant", [], {"value_ints": [2]})])
