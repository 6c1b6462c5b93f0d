"""Replaces nodes of `ai.antiphon` by the target's own nodes.

This is no rule of onnxscript.rewriter. Each match is a single node with optional inputs and outputs, and a
rule would need one pattern for each number of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir
from onnx_ir import convenience

from .....plugins.registry import DOMAIN

Lowering = Callable[[ir.Node], tuple[list[ir.Node], list[ir.Value]]]


def replace_ops(model: ir.Model, lowerings: Mapping[str, Lowering]) -> int:
    """Replace every node whose op is a key of `lowerings`. Returns the number of replaced nodes.

    A lowering returns the new nodes, in order, and the values that replace the outputs of the node. Ops
    without a lowering stay in the graph with their function.
    """
    nodes = [node for node in model.graph if node.domain == DOMAIN and node.op_type in lowerings]
    for node in nodes:
        new_nodes, outputs = lowerings[node.op_type](node)
        for old, new in zip(node.outputs, outputs, strict=True):
            new.shape, new.type, new.name = old.shape, old.type, old.name
        convenience.replace_nodes_and_values(
            model.graph, node, [node], new_nodes, list(node.outputs), outputs
        )
        for domain in {new.domain for new in new_nodes} - set(model.opset_imports):
            model.opset_imports[domain] = 1
    remaining = {node.op_type for node in model.graph.all_nodes() if node.domain == DOMAIN}
    for identifier in [key for key in model.functions if key[0] == DOMAIN and key[1] not in remaining]:
        del model.functions[identifier]
    if not remaining:
        model.opset_imports.pop(DOMAIN, None)
    return len(nodes)
