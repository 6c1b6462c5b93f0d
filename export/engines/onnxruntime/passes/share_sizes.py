"""Shares `Shape` nodes that return the same sizes.

This is no rule of onnxscript.rewriter, which matches connected nodes. These nodes have only their axis names
in common.
"""

from __future__ import annotations

import onnx_ir as ir


def share_sizes(model: ir.Model) -> int:
    """Replace `Shape` nodes of equally named axes by the first of them. Returns the number of removed nodes.

    An axis name stands for one size in the whole graph. Every layer computes the number of tokens from its
    own rows. With one shared `Shape` node, later computations are equal too, and common subexpression
    elimination merges them.
    """
    known: dict[tuple[int | str, ...], ir.Value] = {}
    changed = 0
    for node in [node for node in model.graph if node.op_type == "Shape" and node.domain == ""]:
        axes, result = _axes(node), node.outputs[0]
        if axes is None or result.is_graph_output():
            continue
        if axes in known:
            result.replace_all_uses_with(known[axes])
            model.graph.remove(node, safe=True)
            changed += 1
        else:
            known[axes] = result
    return changed


def _axes(node: ir.Node) -> tuple[int | str, ...] | None:
    """The sizes or names of the axes that the node returns; None if one is unknown."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    start, end = (
        node.attributes[name].as_int() if name in node.attributes else default
        for name, default in (("start", 0), ("end", len(value.shape)))
    )
    axes = tuple(size if isinstance(size, int) else size.value for size in value.shape[start:end])
    return None if None in axes else axes  # type: ignore[return-value]
