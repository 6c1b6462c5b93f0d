"""Ask for the same sizes once.

No rule of onnxscript.rewriter: it matches nodes that are connected, and these share the names of axes alone.
"""

from __future__ import annotations

import onnx_ir as ir


def share_sizes(model: ir.Model) -> int:
    """`Shape` nodes over axes of the same names become one, the first: an axis name stands for one size throughout a graph.

    Every layer asks its own rows for the number of tokens; behind one answer, all that the layers compute from it is equal too, and common
    subexpression elimination leaves one copy.
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
    """The sizes and names that the node asks for, or None where one is not known."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    start, end = (node.attributes[name].as_int() if name in node.attributes else default for name, default in (("start", 0), ("end", len(value.shape))))
    axes = tuple(size if isinstance(size, int) else size.value for size in value.shape[start:end])
    return None if None in axes else axes  # type: ignore[return-value]
