"""Helpers of the lowerings for ONNX Runtime: collecting new nodes, and the mask of rows."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

Attributes = dict[str, int | float | str | list[int] | list[float]]


class Emitter:
    """Collects new nodes in order. A call adds one node and returns its only output."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []

    def __call__(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None = None,
        domain: str = "",
    ) -> ir.Value:
        return self.many(op, inputs, attributes, domain, 1)[0]

    def many(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Attributes | None,
        domain: str,
        outputs: int,
    ) -> Sequence[ir.Value]:
        """Add a node with several outputs and return them."""
        self.nodes.append(ir.node(op, inputs, attributes or {}, domain=domain, num_outputs=outputs))
        return self.nodes[-1].outputs


def row_mask(emit: Emitter, tokens: ir.Value, query_length: ir.Value | None) -> ir.Value:
    """bool [batch, tokens, 1]: True for rows that are not padding. `tokens` is int64 [1].

    All ops use the same nodes, so that a graph keeps one copy.
    """
    one = emit("Constant", [], {"value_int": 1})
    token = emit("Range", [emit("Constant", [], {"value_int": 0}), emit("Squeeze", [tokens]), one])
    is_row = emit(
        "Less", [token, emit("Unsqueeze", [query_length, emit("Constant", [], {"value_ints": [1]})])]
    )
    return emit("Unsqueeze", [is_row, emit("Constant", [], {"value_ints": [2]})])
