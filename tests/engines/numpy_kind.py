"""A toy engine kind: NumPy runs the portable graph node by node (onnx.reference), one row at a time.

It lives in the tests alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from antiphon.export.engines.base import BuiltEngine, Lowered, uncovered
from antiphon.graphs.stage import Stage, StageLoop
from antiphon.plugins import onnx_domain  # noqa: F401  # before onnx.reference knows our domain
from antiphon.plugins.op_form import OpForm
from antiphon.runtime.bundle.specs import Capabilities, Precision, StageEntry, TensorSpec
from antiphon.runtime.bundle.typed_json import typed
from antiphon.runtime.states.pool import UNLIMITED, Slot, StatePool

KIND = "numpy"
REFUSED = ("AriaStep", "GatedDeltaRule", "QuantizedMoE")
"""onnx.reference has no Scan over another axis than the first, which the meaning of GatedDeltaRule needs."""
LOOP, ENGINE_FILE = "loop", "numpy.onnx"
"""The field of the engine file's metadata that holds the stage's loop, which this kind runs in Python."""


TARGETS = ("cpu",)


def builder() -> NumpyBuilder:
    return NumpyBuilder()


def open_engine(folder: Path, entry: StageEntry, threads: int | None = None) -> NumpyEngine:
    return NumpyEngine(onnx.load(folder / entry.artifacts[0]), entry)


def loop_from_json(text: str) -> StageLoop:
    """The loop that `dataclasses.asdict` and JSON made `text` from."""
    stored = json.loads(text)
    specs = {name: typed(tuple[TensorSpec, ...], stored.pop(name), name) for name in ("inputs", "outputs")}
    names = {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
    return StageLoop(**{**stored, **names, **specs})


class NumpyBuilder:
    """See export.engines.base.EngineBuilder."""

    def targets(self) -> tuple[str, ...]:
        return ("cpu",)

    def refuses(self, stage: Stage, forms: Sequence[OpForm], target: str, precision: Precision) -> str | None:
        return next(
            (uncovered(stage, form, "NumPy", "it is a toy") for form in forms if form.op in REFUSED), None
        )

    def tools(self) -> dict[str, str]:
        return {"numpy": np.__version__}

    def sources(self, forms: Sequence[OpForm]) -> tuple[str, ...]:
        return ()

    def lower(self, stage: Stage, portable: ir.Model, target: str) -> Lowered:
        if stage.loop is not None:
            portable.metadata_props[LOOP] = json.dumps(dataclasses.asdict(stage.loop))
        return Lowered(portable, stage.interface, ())

    def compile(
        self, lowered: Lowered, folder: Path, target: str, on_progress: Callable[[str], None] | None = None
    ) -> BuiltEngine:
        ir.save(lowered.graph, folder / ENGINE_FILE)
        return BuiltEngine((ENGINE_FILE,), lowered.interface, Capabilities(rows_exact=True))


class NumpyEngine:
    """See runtime.engines.base.Engine."""

    def __init__(self, model: onnx.ModelProto, entry: StageEntry) -> None:
        self.entry, self._evaluator = entry, ReferenceEvaluator(model)
        stored = {field.key: field.value for field in model.metadata_props}.get(LOOP)
        self._loop_of_stage: StageLoop | None = None if stored is None else loop_from_json(stored)

    def new_states(self, rows: int = 1, capacity: int = UNLIMITED) -> StatePool:
        return StatePool(self.entry.states, rows, capacity)

    def close(self) -> None:
        pass

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        slots: Sequence[Slot] = (),
        outputs: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        assert len(slots) <= 1, "the toy runs one row"
        loop = self._loop_of_stage
        found = (
            self._loop(loop, feeds) if loop is not None else self._once(feeds, slots[0] if slots else None)
        )
        return {name: found[name] for name in (outputs or [spec.name for spec in self.entry.outputs])}

    def _once(self, feeds: Mapping[str, np.ndarray], slot: Slot | None) -> dict[str, np.ndarray]:
        states = (
            {f"past.{state.name}": slot.past(state.name) for state in self.entry.states}
            if slot is not None
            else {}
        )
        found = self._step({**feeds, **states})
        if slot is not None:
            for state in self.entry.states:
                slot.present(state.name)[...] = found[f"present.{state.name}"]
            slot.flip()
        return found

    def _step(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._evaluator.output_names, self._evaluator.run(None, dict(feeds)), strict=True))

    def _loop(self, loop: StageLoop, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        graph = {value.name: value for value in self._evaluator.proto_.graph.input}
        batch = len(feeds[loop.first_rows])
        states: dict[str, np.ndarray] = {}
        shapes: dict[str, list[int]] = {}
        for name, value in graph.items():
            sizes = [
                axis.dim_value or {"batch": batch, "capacity": loop.steps + 1}.get(axis.dim_param, 1)
                for axis in value.type.tensor_type.shape.dim
            ]
            shapes[name] = sizes
            if name.startswith("past."):
                states[name] = np.zeros(sizes, np.float32)
        start, given, drawn = loop.carried
        codes, rows, stacked = [feeds[start]], [], {name: [] for name in loop.stacked}  # type: ignore[var-annotated]
        kinds = {
            name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for name, value in graph.items()
        }
        for step in range(loop.steps):
            bound: dict[str, Any] = {
                name: np.full(shapes[name], value, kinds[name]) for name, value in loop.fixed.items()
            }
            bound |= {
                given: codes[-1],
                loop.first_rows: feeds[loop.first_rows][:, None][:, : 1 if step == 0 else 0],
            }
            bound |= {loop.counter: np.array([step]), "past_length": np.full(batch, step + 1 if step else 0)}
            bound |= {name: feeds[name][:, step] for name in loop.columns} | {
                name: feeds[name] for name in loop.shared
            }
            found = self._step(bound | states)
            states = {
                name.replace("present.", "past."): value
                for name, value in found.items()
                if name.startswith("present.")
            }
            codes.append(found[drawn])
            rows.append(found[loop.summed[1]])
            for name, output in loop.stacked.items():
                stacked[name].append(found[output])
        table = {
            entry.name: onnx.numpy_helper.to_array(entry)
            for entry in self._evaluator.proto_.graph.initializer
            if entry.name == loop.summed[2]
        }[loop.summed[2]]
        rows.append(table[len(table) // (loop.steps + 1) * loop.steps + codes[-1]])
        return {
            loop.gathered: np.stack(codes, axis=1),
            loop.summed[0]: np.sum(rows, axis=0),
            **{name: np.stack(values, axis=1) for name, values in stacked.items()},
        }
