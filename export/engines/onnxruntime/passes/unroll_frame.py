"""Unroll the code predictor's step into a whole frame: 15 steps and their sampling in one engine run.

The portable step reads its cache, past length and step number as inputs. Here each step is a copy of the step's nodes with these bound: the
cache of step s is what step s - 1 returned, the step number is a constant, and the head of a step is a slice of the stored heads, so that
no weight is gathered, copied or stored twice.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .....runtime.bundle.specs import TensorSpec
from .external_slices import slice_external

Values = dict[ir.Value, ir.Value]


def frame_interface(hidden_size: int, codebook: int, groups: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the unrolled predictor, for the manifest."""
    inputs = (
        TensorSpec("hidden", "float32", ("batch", hidden_size)),
        TensorSpec("code0", "int64", ("batch",)),
        TensorSpec("noise", "float32", ("batch", groups - 1)),
        TensorSpec("temperature", "float32", ("batch",)),
        TensorSpec("top_k", "int64", ("batch",)),
        TensorSpec("top_p", "float32", ("batch",)),
    )
    outputs = (
        TensorSpec("codes", "int64", ("batch", groups)),
        TensorSpec("frame_row", "float32", ("batch", hidden_size)),
        TensorSpec("logits", "float32", ("batch", groups - 1, codebook)),
    )
    return inputs, outputs


def unroll_frame(model: ir.Model, hidden_size: int, codebook: int, groups: int) -> ir.Model:
    """The frame model [`frame_interface`] of a lowered step model (attention already GroupQueryAttention); shares its initializers."""
    return _Unroller(model, hidden_size, codebook, groups).build()


class _Unroller:
    def __init__(self, model: ir.Model, hidden_size: int, codebook: int, groups: int) -> None:
        self.step_model, self.groups, self.codebook, self.hidden_size = model, groups, codebook, hidden_size
        inputs, self.output_specs = frame_interface(hidden_size, codebook, groups)
        self.inputs = {spec.name: _graph_input(spec) for spec in inputs}
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}

    def build(self) -> ir.Model:
        hidden = self._emit("Unsqueeze", [self.inputs["hidden"], self._constant("axis_one", np.array([1]))])
        penalised = self._nothing_forbidden()
        code = self.inputs["code0"]
        past: dict[str, ir.Value] = {}
        codes, rows, logits = [code], [], []
        for step in range(self.groups - 1):
            bound = {
                "code": code, "hidden": hidden, "step": self._constant(f"step_{step}", np.array([step])),
                "past_length": self._per_row(0 if step == 0 else step + 1, f"past_length_{step}"),
                "noise": self._column(self.inputs["noise"], step), "penalised": penalised, "suppressed": penalised,
                "repetition_penalty": self._ones(), **{name: self.inputs[name] for name in ("temperature", "top_k", "top_p")},
            }  # fmt: skip
            outputs = self._copy_step(step, bound, past)
            past = {name.replace("present.", "past.", 1): value for name, value in outputs.items() if name.startswith("present.")}
            code = outputs["token"]
            codes.append(code)
            rows.append(outputs["code_row"])
            logits.append(outputs["logits"])
        rows.append(self._last_row(code))
        axis = self._constant("axis_one", np.array([1]))
        columns = [self._emit("Unsqueeze", [value, axis]) for value in codes]
        steps = [self._emit("Unsqueeze", [value, axis]) for value in logits]
        results = {"codes": self._emit("Concat", columns, {"axis": 1}), "frame_row": self._emit("Sum", rows)}
        results["logits"] = self._emit("Concat", steps, {"axis": 1})
        return self._model(results)

    def _copy_step(self, step: int, bound: dict[str, ir.Value], past: dict[str, ir.Value]) -> dict[str, ir.Value]:
        """Copy the step's nodes with its inputs bound; returns its outputs by name."""
        graph = self.step_model.graph
        values: Values = {value: bound[value.name] for value in graph.inputs if value.name in bound}
        for value in graph.initializers.values():
            values[value] = self._initializer(value)
        for node in graph:
            copied = self._special(node, step, values, past)
            if copied is None:
                inputs = [None if value is None else values[value] for value in node.inputs]
                copy = ir.node(
                    node.op_type, inputs, {name: attribute for name, attribute in node.attributes.items()},  # type: ignore[misc]
                    domain=node.domain, num_outputs=len(node.outputs),
                )  # fmt: skip
                self.nodes.append(copy)
                copied = list(copy.outputs)
            for old, new in zip(node.outputs, copied, strict=True):
                if new.producer() is not None and not new.name:
                    new.name = f"step{step}.{old.name}" if old.name else ""
                    new.type, new.shape = old.type, None
                values[old] = new
        return {value.name or "": values[value] for value in graph.outputs}

    def _special(self, node: ir.Node, step: int, values: Values, past: dict[str, ir.Value]) -> list[ir.Value] | None:
        """Nodes that change with the step: attention over the steps so far, the step's own head, the empty hidden rows."""
        if node.op_type == "GroupQueryAttention":
            inputs = [None if value is None else values.get(value) for value in node.inputs]
            for slot in (3, 4):
                source = node.inputs[slot]
                inputs[slot] = past.get(source.name or "") if source is not None else None
            copy = ir.node(node.op_type, inputs, dict(node.attributes), domain=node.domain, num_outputs=3)
            self.nodes.append(copy)
            return list(copy.outputs)
        if node.op_type == "Gather" and self._is_heads(node.inputs[0]):
            return [self._head(step)]
        if node.op_type == "Concat" and step > 0 and node.inputs[0] is not None and node.inputs[0].name == "hidden":
            assert node.inputs[1] is not None
            return [values[node.inputs[1]]]
        if node.op_type == "Where" and _is_attention(node.inputs[1]):
            assert node.inputs[1] is not None
            return [values[node.inputs[1]]]  # a frame has no padding rows to set to zero
        is_of_hidden = node.op_type == "Shape" and node.inputs[0] is not None and node.inputs[0].name == "hidden"
        if is_of_hidden and "start" in node.attributes and node.attributes["start"].as_int() == 1:
            return [self._constant("one_row" if step == 0 else "no_row", np.array([1 if step == 0 else 0]))]
        return None

    def _is_heads(self, value: ir.Value | None) -> bool:
        """Whether `value` is the stacked heads, or the one head [1, hidden, codebook] already chosen from them."""
        heads = self.step_model.graph.initializers["heads"]
        producer = value.producer() if value is not None else None
        return value is heads or (producer is not None and producer.op_type == "Gather" and producer.inputs[0] is heads)

    def _head(self, step: int) -> ir.Value:
        name = f"heads.{step}"
        if name not in self.initializers:
            heads = self.step_model.graph.initializers["heads"].const_value
            assert heads is not None
            self._add_initializer(name, slice_external(heads, step, name))
        return self.initializers[name]

    def _last_row(self, code: ir.Value) -> ir.Value:
        table = self._initializer(self.step_model.graph.initializers["code_embedding"])
        index = self._emit("Add", [code, self._constant("last_table", np.array([(self.groups - 1) * self.codebook]))])
        return self._emit("Gather", [table, index], {"axis": 0})

    def _nothing_forbidden(self) -> ir.Value:
        row = self._constant("nothing_forbidden", np.zeros((1, self.codebook), bool))
        return row

    def _ones(self) -> ir.Value:
        return self._constant("no_penalty", np.ones(1, np.float32))

    def _per_row(self, number: int, name: str) -> ir.Value:
        zeros = self._emit_once("zeros_per_row", "Mul", [self.inputs["code0"], self._constant("zero", np.array(0))])
        return self._emit("Add", [zeros, self._constant(name, np.array([number]))])

    def _column(self, matrix: ir.Value, column: int) -> ir.Value:
        return self._emit("Gather", [matrix, self._constant(f"column_{column}", np.array(column))], {"axis": 1})

    def _emit(self, op: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None) -> ir.Value:
        node = ir.node(op, inputs, attributes or {})
        node.outputs[0].name = f"frame.{len(self.nodes)}.{op}"
        self.nodes.append(node)
        return node.outputs[0]

    def _emit_once(self, key: str, op: str, inputs: list[ir.Value]) -> ir.Value:
        for node in self.nodes:
            if node.outputs[0].name == key:
                return node.outputs[0]
        value = self._emit(op, inputs)
        value.name = key
        return value

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        name = f"frame.{name}"
        if name not in self.initializers:
            self._add_initializer(name, ir.tensor(array, name=name))
        return self.initializers[name]

    def _initializer(self, value: ir.Value) -> ir.Value:
        assert value.name is not None
        if value.name not in self.initializers:
            assert value.const_value is not None
            self._add_initializer(value.name, value.const_value)
        return self.initializers[value.name]

    def _add_initializer(self, name: str, tensor: ir.TensorProtocol) -> None:
        self.initializers[name] = ir.Value(name=name, shape=ir.Shape(list(tensor.shape.numpy())), type=ir.TensorType(tensor.dtype), const_value=tensor)

    def _model(self, results: dict[str, ir.Value]) -> ir.Model:
        outputs = []
        for spec in self.output_specs:
            value = results[spec.name]
            kind = ir.DataType[spec.dtype.upper().replace("FLOAT32", "FLOAT")]
            value.name, value.shape, value.type = spec.name, ir.Shape(list(spec.shape)), ir.TensorType(kind)
            outputs.append(value)
        used = {value for node in self.nodes for value in node.inputs}
        initializers = [value for value in self.initializers.values() if value in used]
        graph = ir.Graph(
            list(self.inputs.values()), outputs, nodes=self.nodes, initializers=initializers,
            opset_imports=dict(self.step_model.opset_imports), name=self.step_model.graph.name,
        )  # fmt: skip
        functions = list(self.step_model.functions.values())
        return ir.Model(graph, ir_version=self.step_model.ir_version, producer_name="antiphon", functions=functions)


def _is_attention(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "GroupQueryAttention"


def _graph_input(spec: TensorSpec) -> ir.Value:
    kind = ir.DataType.INT64 if spec.dtype == "int64" else ir.DataType.FLOAT
    return ir.Value(name=spec.name, shape=ir.Shape(list(spec.shape)), type=ir.TensorType(kind))
