"""SampleToken on ONNX Runtime: if every row is greedy, only ArgMax runs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..registry import DOMAIN


def lower(node: ir.Node) -> tuple[list[ir.Node], list[ir.Value]]:
    """An If on "all temperatures are 0": penalty, suppression and ArgMax; else the op itself, as a function.

    Sorting and summing a vocabulary costs more than an ArgMax, and a frame of speech takes sixteen samples.
    Masks that are known to be empty cost nothing in the greedy branch.
    """
    temperature = node.inputs[2]
    zero = ir.node("Constant", [], {"value_float": 0.0})
    is_greedy = ir.node("Equal", [temperature, zero.outputs[0]])
    as_int = ir.node("Cast", [is_greedy.outputs[0]], {"to": ir.DataType.INT32})
    smallest = ir.node("ReduceMin", [as_int.outputs[0]], {"keepdims": 0})
    all_greedy = ir.node("Cast", [smallest.outputs[0]], {"to": ir.DataType.BOOL})
    full = ir.node("SampleToken", list(node.inputs), dict(node.attributes), domain=DOMAIN)
    _finish(full.outputs[0], f"{node.outputs[0].name}.sampled")
    branches = {
        "then_branch": _greedy(node),
        "else_branch": ir.Graph([], [full.outputs[0]], nodes=[full], name="sampled"),
    }
    choice = ir.node("If", [all_greedy.outputs[0]], branches)
    return [zero, is_greedy, as_int, smallest, all_greedy, choice], [choice.outputs[0]]


def _greedy(node: ir.Node) -> ir.Graph:
    logits, penalty, penalised, suppressed = (node.inputs[place] for place in (0, 5, 6, 7))
    nodes: list[ir.Node] = []

    def emit(
        op: str, inputs: list[ir.Value | None], attributes: dict[str, int | float | list[int]] | None = None
    ) -> ir.Value:
        nodes.append(ir.node(op, inputs, attributes or {}))
        # A branch must not reuse a name of the outer graph.
        nodes[-1].outputs[0].name = f"{node.outputs[0].name}.greedy.{len(nodes)}"
        return nodes[-1].outputs[0]

    best = emit("Cast", [logits], {"to": ir.DataType.FLOAT})
    if not _is_empty(penalised):
        column = emit("Unsqueeze", [penalty, emit("Constant", [], {"value_ints": [-1]})])
        is_positive = emit("Greater", [best, emit("Constant", [], {"value_float": 0.0})])
        punished = emit("Where", [is_positive, emit("Div", [best, column]), emit("Mul", [best, column])])
        best = emit("Where", [penalised, punished, best])
    if not _is_empty(suppressed):
        best = emit("Where", [suppressed, emit("Constant", [], {"value_float": float("-inf")}), best])
    token = emit("ArgMax", [best], {"axis": -1, "keepdims": 0, "select_last_index": 0})
    _finish(token, f"{node.outputs[0].name}.greedy")
    return ir.Graph([], [token], nodes=nodes, name="greedy")


def _is_empty(mask: ir.Value | None) -> bool:
    return mask is not None and mask.const_value is not None and not np.any(mask.const_value.numpy())


def _finish(token: ir.Value, name: str) -> None:
    token.name, token.type = name, ir.TensorType(ir.DataType.INT64)
