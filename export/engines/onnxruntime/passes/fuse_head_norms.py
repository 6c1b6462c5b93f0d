"""Normalises and rotates queries and keys together.

This is no rule of onnxscript.rewriter, because a rule has a fixed number of outputs. This Split has three
outputs, or four with gates, and all outputs without a norm must move to the new Split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

DEFAULT_EPSILON = 1e-5
"""The default of RMSNormalization-23."""


@dataclass(frozen=True)
class _Track:
    """The nodes from an output of the projection's Split to its rotated heads.

    They are Reshape, RMSNormalization, Reshape, RotaryEmbedding. `turning` is the rotary_embedding_dim of the
    last: the number of rotated dimensions of a head, 0 for all.
    """

    nodes: tuple[ir.Node, ir.Node, ir.Node, ir.Node]
    weight: np.ndarray
    heads: int
    turning: int
    epsilon: float

    @property
    def rotary(self) -> ir.Node:
        return self.nodes[3]


def fuse_head_norms(model: ir.Model) -> int:
    """Apply the head norm and the rotary embedding to queries and keys as one tensor.

    Applies to a Split whose first two outputs, queries and keys, have a norm over the head and the same
    rotary tables. A decode step consists of many small nodes; this pass reduces nine per layer to six. The
    weight of the norm becomes a table [heads, dim]. ONNX Runtime's kernel broadcasts it over the rows, but
    the ONNX standard does not guarantee that, so only this target has the pass. Returns the number of changed
    layers.
    """
    changed = 0
    for split in [node for node in model.graph if node.op_type == "Split" and len(node.outputs) >= 3]:
        tracks = [_track(output) for output in split.outputs[:2]]
        if (
            tracks[0] is None
            or tracks[1] is None
            or split.inputs[1] is None
            or split.inputs[1].const_value is None
        ):
            continue
        if _integer(split, "axis", 0) not in (-1, 2) or any(
            value.is_graph_output() for value in split.outputs[2:]
        ):
            continue
        query, key = tracks[0], tracks[1]
        if query.rotary.inputs[1:] != key.rotary.inputs[1:] or query.turning != key.turning:
            continue
        if query.epsilon != key.epsilon or query.weight.shape != key.weight.shape:
            continue
        _replace(model, split, query, key, changed)
        changed += 1
    return changed


def _replace(model: ir.Model, split: ir.Node, query: _Track, key: _Track, number: int) -> None:
    sizes = split.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    both, dim = query.heads + key.heads, len(query.weight)
    # [heads, dim]
    table = np.concatenate([np.tile(track.weight, (track.heads, 1)) for track in (query, key)])
    fused_sizes = _constant(model, f"fused_sizes.{number}", np.array([sizes[0] + sizes[1], *sizes[2:]]))
    parts = ir.node("Split", [split.inputs[0], fused_sizes], {"axis": 2}, num_outputs=len(split.outputs) - 1)
    heads = ir.node(
        "Reshape", [parts.outputs[0], _constant(model, f"fused_heads.{number}", np.array([0, 0, both, dim]))]
    )
    norm = ir.node(
        "RMSNormalization",
        [heads.outputs[0], _constant(model, f"fused_norm.{number}", table)],
        {"axis": -1, "epsilon": query.epsilon},
    )
    flat = ir.node(
        "Reshape", [norm.outputs[0], _constant(model, f"fused_flat.{number}", np.array([0, 0, both * dim]))]
    )
    attributes = {"num_heads": both} | ({"rotary_embedding_dim": query.turning} if query.turning else {})
    rotary = ir.node("RotaryEmbedding", [flat.outputs[0], *query.rotary.inputs[1:3]], attributes)
    apart = ir.node(
        "Split",
        [rotary.outputs[0], _constant(model, f"fused_apart.{number}", sizes[:2])],
        {"axis": 2},
        num_outputs=2,
    )
    new = [parts, heads, norm, flat, rotary, apart]
    replaced = [query.rotary.outputs[0], key.rotary.outputs[0], *split.outputs[2:]]
    for old, value in zip(replaced, [*apart.outputs, *parts.outputs[1:]], strict=True):
        value.shape, value.type, value.name = old.shape, old.type, old.name
        old.replace_all_uses_with(value)
    model.graph.insert_after(split, new)
    model.graph.remove([*reversed(query.nodes), *reversed(key.nodes), split], safe=True)


def _track(value: ir.Value) -> _Track | None:
    nodes: list[ir.Node] = []
    for op in ("Reshape", "RMSNormalization", "Reshape", "RotaryEmbedding"):
        uses = list(value.uses())
        if len(uses) != 1 or uses[0].idx != 0 or uses[0].node.op_type != op or value.is_graph_output():
            return None
        nodes.append(uses[0].node)
        value = uses[0].node.outputs[0]
    reshape, norm, back, rotary = nodes
    weight = norm.inputs[1]
    heads, axis = _integer(rotary, "num_heads", 0), _integer(norm, "axis", -1)
    is_special = _integer(rotary, "interleaved", 0) != 0 or len(rotary.inputs) != 3
    if (
        weight is None
        or weight.const_value is None
        or heads < 1
        or axis not in (-1, 3)
        or is_special
        or rotary.outputs[0].is_graph_output()
    ):
        return None
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else DEFAULT_EPSILON
    return _Track(
        (reshape, norm, back, rotary),
        weight.const_value.numpy(),
        heads,
        _integer(rotary, "rotary_embedding_dim", 0),
        epsilon,
    )


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(list(array.shape)), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.initializers[name] = value
    return value
