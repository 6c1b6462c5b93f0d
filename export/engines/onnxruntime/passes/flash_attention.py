"""Plain attention of the encoders by a kernel that never holds all scores at once."""

from __future__ import annotations

import onnx_ir as ir


def flash_attention(model: ir.Model) -> int:
    """Unmasked `Attention` over [batch, heads, tokens, dim] and the transposition behind it become `com.microsoft.MultiHeadAttention`.

    That kernel works in blocks where query, key and value come as [batch, tokens, heads * dim]: a picture of 8,000 patches would
    otherwise need 4 GB of scores per layer of 16 heads. It returns the same layout, so the result's own transposition and reshape go.
    """
    changed = 0
    for node in [node for node in model.graph if node.op_type == "Attention" and node.domain == "" and _is_plain(node)]:
        tail = _tail(node)
        query = node.inputs[0]
        if tail is None or query is None or query.shape is None or not isinstance(query.shape[1], int):
            continue
        if any(value is None or value.shape != query.shape for value in node.inputs[1:3]):
            continue  # attention over other rows, or with fewer heads for the keys
        transpose, reshape = tail
        turned = [ir.node("Transpose", [value], {"perm": [0, 2, 1, 3]}) for value in node.inputs]
        flat = [ir.node("Reshape", [rows.outputs[0], reshape.inputs[1]], dict(reshape.attributes)) for rows in turned]
        attributes: dict[str, int | float] = {"num_heads": query.shape[1]}
        if "scale" in node.attributes:
            attributes["scale"] = node.attributes["scale"].as_float()
        attention = ir.node("MultiHeadAttention", [rows.outputs[0] for rows in flat], attributes, domain="com.microsoft")
        result, old = attention.outputs[0], reshape.outputs[0]
        result.shape, result.type, result.name = old.shape, old.type, old.name
        model.graph.insert_before(reshape, [*turned, *flat, attention])
        old.replace_all_uses_with(result)
        model.graph.remove([reshape, transpose, node], safe=True)
        changed += 1
    if changed:
        model.opset_imports.setdefault("com.microsoft", 1)
    return changed


def _is_plain(node: ir.Node) -> bool:
    """Neither mask, cache, causality nor soft cap."""
    is_causal = node.attributes["is_causal"].as_int() if "is_causal" in node.attributes else 0
    softcap = node.attributes["softcap"].as_float() if "softcap" in node.attributes else 0.0
    return len([value for value in node.inputs if value is not None]) == 3 and len(node.outputs) == 1 and not is_causal and not softcap


def _tail(node: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """The transposition and the reshape that follow, when they are the only readers."""
    found = []
    value = node.outputs[0]
    for op in ("Transpose", "Reshape"):
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].node.op_type != op or value.is_graph_output():
            return None
        found.append(uses[0].node)
        value = uses[0].node.outputs[0]
    is_whole = value.shape is not None and len(value.shape) == 3 and not value.is_graph_output()  # [batch, tokens, heads * dim]
    return (found[0], found[1]) if is_whole and list(found[0].attributes["perm"].as_ints()) == [0, 2, 1, 3] else None
