"""Builds engines for ONNX Runtime: the lowered graph beside the weights, which both files share."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import onnx_ir as ir
import torch

from ....graphs.stage import Stage, StageLoop
from ....plugins.op_form import OpForm
from ....plugins.registry import FOLDERS
from ....runtime.bundle.specs import Precision, StageEntry
from ....runtime.engines.onnxruntime.capabilities import capabilities
from ....runtime.engines.onnxruntime.library import onnxruntime
from ..base import BuiltEngine, Lowered, Tapped, uncovered
from .layer_taps import tap
from .lower import has_lowering, lower

KIND = "ONNX Runtime"
CPU = ("cpu",)
ENGINE_FILE = "engine.onnx"
TOOLS = ("onnx", "onnxscript", "onnx_ir", "numpy")


def builder() -> OnnxRuntimeBuilder:
    """See export.engines.registry."""
    return OnnxRuntimeBuilder()


class OnnxRuntimeBuilder:
    """See base.EngineBuilder."""

    def targets(self) -> tuple[str, ...]:
        """See base.EngineBuilder."""
        return CPU

    def refuses(self, stage: Stage, forms: Sequence[OpForm], target: str, precision: Precision) -> str | None:
        """See base.EngineBuilder."""
        if target not in CPU:
            return (
                f"Stage {stage.name}: {KIND} is built for {', '.join(CPU)}, not for {target}; "
                "give another engine or target."
            )
        if precision != Precision():
            return (
                f"Stage {stage.name}: {KIND} is built in float32 (precision fp32); "
                "give --precision fp32 or another engine."
            )
        for form in forms:
            reason = _refusal(form)
            if reason is not None:
                return uncovered(stage, form, KIND, reason)
        return None

    def tools(self) -> dict[str, str]:
        """See base.EngineBuilder."""
        return {name: importlib.metadata.version(name) for name in TOOLS} | {
            onnxruntime.__name__: onnxruntime.__version__
        }

    def sources(self, forms: Sequence[OpForm]) -> tuple[str, ...]:
        """See base.EngineBuilder."""
        ops = dict.fromkeys(form.op for form in forms)
        lowerings = tuple(f"antiphon.plugins.{FOLDERS[op]}.lower_onnxruntime" for op in ops)
        return (
            "antiphon.export.engines.onnxruntime",
            "antiphon.runtime.engines.onnxruntime.capabilities",
            *lowerings,
        )

    def lower(self, stage: Stage, portable: ir.Model, target: str) -> Lowered:
        """See base.EngineBuilder."""
        return lower(stage, portable)

    def compile(
        self, lowered: Lowered, folder: Path, target: str, on_progress: Callable[[str], None] | None = None
    ) -> BuiltEngine:
        """See base.EngineBuilder."""
        ir.save(lowered.graph, folder / ENGINE_FILE)
        return BuiltEngine((ENGINE_FILE,), lowered.interface, capabilities(lowered.interface))

    def tap(
        self, folder: Path, entry: StageEntry, module: torch.nn.Module, loop: StageLoop | None
    ) -> Tapped | None:
        """See base.EngineBuilder."""
        return tap(folder, entry, module, loop)


def _refusal(form: OpForm) -> str | None:
    """Why ONNX Runtime cannot run this use of an op; None where it can."""
    if not has_lowering(form.op):
        return "it has no lowering for it, and would run the reference, which is many times slower"
    refuses = getattr(
        import_module(f"antiphon.plugins.{FOLDERS[form.op]}.lower_onnxruntime"), "refuses", None
    )
    return None if refuses is None else refuses(form)
