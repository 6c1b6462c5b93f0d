"""What builds the engines of a kind: it refuses, lowers and compiles; the build itself knows no kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch

from ...graphs.stage import Stage, StageLoop
from ...plugins.op_form import OpForm
from ...runtime.bundle.specs import Capabilities, Precision, StageEntry, StageInterface


@dataclass(frozen=True)
class PassRecord:
    """What one pass of a lowering did: its name, and how many places of the graph it changed."""

    name: str
    sites: int


@dataclass(frozen=True)
class Lowered:
    """A stage's graph as the engine library gets it."""

    graph: ir.Model
    interface: StageInterface
    passes: tuple[PassRecord, ...]


@dataclass(frozen=True)
class BuiltEngine:
    """A compiled stage: `artifacts` are names of files in the folder it was compiled
    into, the opened one first.
    """

    artifacts: tuple[str, ...]
    interface: StageInterface
    capabilities: Capabilities


@dataclass(frozen=True)
class Tapped:
    """An engine that gives the outputs of layers beside its own."""

    places: dict[tuple[int, str], str]
    """(step of the loop or 0, path of a submodule) to the name of its output, in the order of execution."""
    run: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], dict[str, np.ndarray]]
    """From feeds and past states to the values of `places`, and to what a loop gathers."""


class EngineBuilder(Protocol):
    """One engine kind, for the build."""

    def targets(self) -> tuple[str, ...]:
        """What engines of this kind can be compiled for; names of bundle.names.TARGETS or the kind's own."""

    def refuses(self, stage: Stage, forms: Sequence[OpForm], target: str, precision: Precision) -> str | None:
        """Why `stage` cannot be built for `target` in `precision`, as a sentence; None where it can.

        Reads no weights.

        `forms`: every use of an op of ai.antiphon in the stage.
        """

    def tools(self) -> dict[str, str]:
        """Versions of the programs that decide an engine beside the portable graph, by name."""

    def sources(self, forms: Sequence[OpForm]) -> tuple[str, ...]:
        """Modules and packages of Antiphon (dotted names) that decide how a stage with `forms`
        is lowered and compiled.
        """

    def lower(self, stage: Stage, portable: ir.Model, target: str) -> Lowered:
        """Lower `portable`, the graph of `stage` with its weights attached as external data, in place."""

    def compile(
        self, lowered: Lowered, folder: Path, target: str, on_progress: Callable[[str], None] | None = None
    ) -> BuiltEngine:
        """Write the engine into `folder`, where the weights lie; `on_progress` is told each step."""

    def tap(
        self, folder: Path, entry: StageEntry, module: torch.nn.Module, loop: StageLoop | None
    ) -> Tapped | None:
        """The layers of `module` in the built engine of `entry`, in the bundle `folder`;
        None where the kind shows none.
        """


def uncovered(stage: Stage, form: OpForm, kind: str, reason: str) -> str:
    """The sentence by which a kind refuses one use of an op."""
    return (
        f"Stage {stage.name}: {kind} cannot run the op {form.op} of the node {form.node} ({reason}); "
        f"build the stage with another engine (--engine {stage.name}=KIND), or add the lowering."
    )
