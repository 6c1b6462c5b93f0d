"""Where the layers of a module are in its graphs, so that an engine can be compared layer by layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from ....graphs.stage import StageLoop
from ....runtime.bundle.specs import StageEntry
from ....runtime.engines.onnxruntime.library import onnxruntime
from ....runtime.engines.onnxruntime.sessions import make_session
from ..base import Tapped
from .passes.unroll_loop import step_name

PORTABLE_FILE = "portable.onnx"
LAYER = re.compile(r"^(.*\.)?\d+$")


def layer_values(portable: Path, module: torch.nn.Module) -> dict[str, str]:
    """Submodule path to the name of its output in the portable graph, in the order of execution.

    Layers are the members of the module's lists (layers.0, blocks.1 ...); the graph's nodes carry the path of
    the module they came from.
    """
    model = ir.load(portable)
    layers = {path for path, _ in module.named_modules() if LAYER.match(path)}
    last: dict[str, str] = {}
    for node in model.graph:
        scope, output = node.metadata_props.get("module", ""), node.outputs[0]
        # A layer's lengths and constants are small; its output is a tensor of two axes or more.
        if not output.name or output.dtype != ir.DataType.FLOAT or len(output.shape or ()) < 2:
            continue
        for path in layers:
            if scope == path or scope.startswith(path + "."):
                last.pop(path, None)
                last[path] = output.name
    return last


def tap(folder: Path, entry: StageEntry, module: torch.nn.Module, loop: StageLoop | None) -> Tapped:
    """The layers of `module` in the engine of `entry`,
    whose artifacts are relative to the bundle `folder`.
    """
    engine = folder / entry.artifacts[0]
    values = layer_values(engine.parent / PORTABLE_FILE, module)
    steps = 1 if loop is None else loop.steps
    names = {
        (step, path): name if loop is None else step_name(step, name)
        for step in range(steps)
        for path, name in values.items()
    }
    session, found = _session_with_outputs(engine, list(names.values()))
    wanted = [*found, *([loop.gathered] if loop is not None else [])]

    def run(feeds: Mapping[str, np.ndarray], states: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        past = {f"past.{name}": array for name, array in states.items()}
        return dict(zip(wanted, session.run(wanted, {**feeds, **past}), strict=True))

    return Tapped({place: name for place, name in names.items() if name in found}, run)


def _session_with_outputs(engine: Path, names: list[str]) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """The engine with the values `names` as further outputs, and those of them that the engine still has."""
    model = ir.load(engine)
    existing = {value.name for value in model.graph.outputs}
    values = {output.name: output for node in model.graph for output in node.outputs}
    found = [name for name in names if name in values]
    for name in found:
        if name not in existing:
            values[name].shape = None
            model.graph.outputs.append(values[name])
    return make_session(ir.to_proto(model).SerializeToString(), weights_folder=engine.parent), found
