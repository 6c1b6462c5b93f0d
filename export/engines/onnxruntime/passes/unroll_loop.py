"""Unrolls the loop of a stage, such as the code predictor's frame: one engine run computes all steps.

The portable step reads its cache, past length and step number as inputs. The unrolled graph has a copy of the
step's nodes for each step. Its cache is the output of the previous step, and its step number is a constant.
An indexed parameter is a slice of the stored one, so no weight is gathered, copied or stored twice.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .....graphs.stage import StageLoop
from .....runtime.bundle.specs import TensorSpec
from .external_slices import slice_external

Values = dict[ir.Value, ir.Value]


def unroll_loop(model: ir.Model, loop: StageLoop) -> ir.Model:
    """The model of the whole `loop`, made from the lowered model of its step, whose initializers it shares.

    The attention of the step must already be GroupQueryAttention.
    """
    return _Unroller(model, loop).build()


def step_name(step: int, name: str) -> str:
    """The name in the unrolled graph of the value `name` of the step's graph."""
    return f"step{step}.{name}"


class _Unroller:
    def __init__(self, model: ir.Model, loop: StageLoop) -> None:
        self.step_model, self.loop = model, loop
        self.inputs = {spec.name: _graph_input(spec) for spec in loop.inputs}
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}

    def build(self) -> ir.Model:
        loop = self.loop
        first_rows = self._emit(
            "Unsqueeze", [self.inputs[loop.first_rows], self._constant("axis_one", np.array([1]))]
        )
        fixed = {name: self._fixed(name, value) for name, value in loop.fixed.items()}
        start, step_input, step_output = loop.carried
        code = self.inputs[start]
        past: dict[str, ir.Value] = {}
        codes, rows = [code], []
        stacked: dict[str, list[ir.Value]] = {name: [] for name in loop.stacked}
        for step in range(loop.steps):
            bound = {
                step_input: code,
                loop.first_rows: first_rows,
                loop.counter: self._constant(f"step_{step}", np.array([step])),
                "past_length": self._per_row(0 if step == 0 else step + 1, f"past_length_{step}"),
                **{name: self._column(self.inputs[name], step) for name in loop.columns},
                **fixed,
                **{name: self.inputs[name] for name in loop.shared},
            }
            outputs = self._copy_step(step, bound, past)
            past = {
                name.replace("present.", "past.", 1): value
                for name, value in outputs.items()
                if name.startswith("present.")
            }
            code = outputs[step_output]
            codes.append(code)
            rows.append(outputs[loop.summed[1]])
            for name, output in loop.stacked.items():
                stacked[name].append(outputs[output])
        rows.append(self._last_row(code))
        axis = self._constant("axis_one", np.array([1]))
        columns = [self._emit("Unsqueeze", [value, axis]) for value in codes]
        layers = {
            name: [self._emit("Unsqueeze", [value, axis]) for value in values]
            for name, values in stacked.items()
        }
        results = {
            loop.gathered: self._emit("Concat", columns, {"axis": 1}),
            loop.summed[0]: self._emit("Sum", rows),
        }
        results |= {name: self._emit("Concat", values, {"axis": 1}) for name, values in layers.items()}
        return self._model(results)

    def _copy_step(
        self, step: int, bound: dict[str, ir.Value], past: dict[str, ir.Value]
    ) -> dict[str, ir.Value]:
        """Copy the nodes of the step with `bound` and `past` as inputs. Returns its outputs by name."""
        graph = self.step_model.graph
        values: Values = {value: bound[value.name] for value in graph.inputs if value.name in bound}
        for value in graph.initializers.values():
            values[value] = self._initializer(value)
        for node in graph:
            copied = self._special(node, step, values, past)
            if copied is None:
                inputs = [None if value is None else values[value] for value in node.inputs]
                copy = ir.node(
                    node.op_type,
                    inputs,
                    {name: attribute for name, attribute in node.attributes.items()},  # type: ignore[misc]
                    domain=node.domain,
                    num_outputs=len(node.outputs),
                )
                self.nodes.append(copy)
                copied = list(copy.outputs)
            for old, new in zip(node.outputs, copied, strict=True):
                if new.producer() is not None and not new.name:
                    new.name = step_name(step, old.name) if old.name else ""
                    new.type, new.shape = old.type, None
                values[old] = new
        return {value.name or "": values[value] for value in graph.outputs}

    def _special(
        self, node: ir.Node, step: int, values: Values, past: dict[str, ir.Value]
    ) -> list[ir.Value] | None:
        """The outputs of a node that differs between steps; None for any other node.

        These are attention (over the previous steps), the choice of the step's head, and the hidden rows
        (empty after step 0).
        """
        if node.op_type == "GroupQueryAttention":
            inputs = [None if value is None else values.get(value) for value in node.inputs]
            for slot in (3, 4):
                source = node.inputs[slot]
                inputs[slot] = past.get(source.name or "") if source is not None else None
            copy = ir.node(node.op_type, inputs, dict(node.attributes), domain=node.domain, num_outputs=3)
            self.nodes.append(copy)
            return list(copy.outputs)
        indexed = self._indexed_by_step(node.inputs[0]) if node.op_type == "Gather" else None
        if indexed is not None:
            return [self._of_step(indexed, step)]
        if (
            node.op_type == "Concat"
            and step > 0
            and node.inputs[0] is not None
            and node.inputs[0].name == self.loop.first_rows
        ):
            assert node.inputs[1] is not None
            return [values[node.inputs[1]]]
        if node.op_type == "Where" and _is_attention(node.inputs[1]):
            assert node.inputs[1] is not None
            return [values[node.inputs[1]]]  # a loop has no padding rows that must be zero
        is_of_hidden = (
            node.op_type == "Shape"
            and node.inputs[0] is not None
            and node.inputs[0].name == self.loop.first_rows
        )
        if is_of_hidden and "start" in node.attributes and node.attributes["start"].as_int() == 1:
            return [self._constant("one_row" if step == 0 else "no_row", np.array([1 if step == 0 else 0]))]
        return None

    def _indexed_by_step(self, value: ir.Value | None) -> str | None:
        """The indexed parameter that is `value`, or from which `value` [1, ...] was gathered; else None."""
        producer = value.producer() if value is not None else None
        source = producer.inputs[0] if producer is not None and producer.op_type == "Gather" else value
        return next(
            (name for name in self.loop.indexed if source is self.step_model.graph.initializers[name]), None
        )

    def _of_step(self, parameter: str, step: int) -> ir.Value:
        name = f"{parameter}.{step}"
        if name not in self.initializers:
            whole = self.step_model.graph.initializers[parameter].const_value
            assert whole is not None
            self._add_initializer(name, slice_external(whole, step, name))
        return self.initializers[name]

    def _last_row(self, code: ir.Value) -> ir.Value:
        """The row of the last carried value; no step computes it."""
        parameter = self.step_model.graph.initializers[self.loop.summed[2]]
        assert parameter.shape is not None
        rows, tables = int(parameter.shape[0]), self.loop.steps + 1  # type: ignore[arg-type]
        table = self._initializer(parameter)
        index = self._emit(
            "Add", [code, self._constant("last_table", np.array([rows // tables * self.loop.steps]))]
        )
        return self._emit("Gather", [table, index], {"axis": 0})

    def _fixed(self, name: str, value: float) -> ir.Value:
        """The constant of a fixed step input, with one row for the whole batch."""
        found = next(entry for entry in self.step_model.graph.inputs if entry.name == name)
        assert found.shape is not None and found.dtype is not None
        shape = [size if isinstance(size, int) else 1 for size in found.shape]
        kind = "nothing" if not value else "one"
        return self._constant(
            f"{kind}_{'x'.join(map(str, shape))}", np.full(shape, value, found.dtype.numpy())
        )

    def _per_row(self, number: int, name: str) -> ir.Value:
        zeros = self._emit_once(
            "zeros_per_row", "Mul", [self.inputs[self.loop.carried[0]], self._constant("zero", np.array(0))]
        )
        return self._emit("Add", [zeros, self._constant(name, np.array([number]))])

    def _column(self, matrix: ir.Value, column: int) -> ir.Value:
        return self._emit(
            "Gather", [matrix, self._constant(f"column_{column}", np.array(column))], {"axis": 1}
        )

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
        self.initializers[name] = ir.Value(
            name=name,
            shape=ir.Shape(list(tensor.shape.numpy())),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )

    def _model(self, results: dict[str, ir.Value]) -> ir.Model:
        outputs = []
        for spec in self.loop.outputs:
            value = results[spec.name]
            kind = ir.DataType[spec.dtype.upper().replace("FLOAT32", "FLOAT")]
            value.name, value.shape, value.type = spec.name, ir.Shape(list(spec.shape)), ir.TensorType(kind)
            outputs.append(value)
        used = {value for node in self.nodes for value in node.inputs}
        initializers = [value for value in self.initializers.values() if value in used]
        graph = ir.Graph(
            list(self.inputs.values()),
            outputs,
            nodes=self.nodes,
            initializers=initializers,
            opset_imports=dict(self.step_model.opset_imports),
            name=self.step_model.graph.name,
        )
        functions = list(self.step_model.functions.values())
        return ir.Model(
            graph, ir_version=self.step_model.ir_version, producer_name="antiphon", functions=functions
        )


def _is_attention(value: ir.Value | None) -> bool:
    producer = value.producer() if value is not None else None
    return producer is not None and producer.op_type == "GroupQueryAttention"


def _graph_input(spec: TensorSpec) -> ir.Value:
    kind = ir.DataType.INT64 if spec.dtype == "int64" else ir.DataType.FLOAT
    return ir.Value(name=spec.name, shape=ir.Shape(list(spec.shape)), type=ir.TensorType(kind))
