"""Whether a bundle and a checkpoint belong together, told before any weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from ...graphs.stage import Stage
from ...runtime.bundle.errors import AntiphonError
from ...runtime.bundle.manifest import Manifest
from ...runtime.bundle.specs import StageEntry, StateSpec, TensorSpec

ADVICE = "give the checkpoint that the bundle was built from."
Interface = dict[str, Sequence[TensorSpec] | Sequence[StateSpec]]


def check_bundle(folder: Path, manifest: Manifest, made: Sequence[Stage]) -> None:
    """Raises AntiphonError unless the bundle has just the stages `made` of a checkpoint,
    with their tensors and their number of weights.
    """
    expected, found = {stage.name for stage in made}, set(manifest.stages)
    if expected - found:
        raise AntiphonError(
            f"The bundle {folder} lacks {_stages(expected - found)}, which the checkpoint has; {ADVICE}"
        )
    if found - expected:
        raise AntiphonError(
            f"The bundle {folder} has {_stages(found - expected)}, which the checkpoint lacks; {ADVICE}"
        )
    for stage in made:
        _check_stage(folder, manifest.stages[stage.name], stage)


def _check_stage(folder: Path, entry: StageEntry, stage: Stage) -> None:
    found: Interface = {"input": entry.inputs, "output": entry.outputs, "state": entry.states}
    for kind, specs in _interface(stage).items():
        wanted, there = _shapes(specs), _shapes(found[kind])
        for name in dict.fromkeys((*wanted, *there)):
            if name not in there:
                raise AntiphonError(
                    f"Stage {stage.name} of {folder} has no {kind} {name}, the checkpoint's has one; {ADVICE}"
                )
            if name not in wanted:
                raise AntiphonError(
                    f"Stage {stage.name} of {folder} has the {kind} {name}, "
                    f"the checkpoint's has none; {ADVICE}"
                )
            if wanted[name] != there[name]:
                raise AntiphonError(
                    f"Stage {stage.name} of {folder} has {name} of {there[name]}, "
                    f"the checkpoint's is of {wanted[name]}; {ADVICE}"
                )
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in stage.make_module().parameters())
    if parameters != entry.parameters:  # layers without a state show in nothing else
        raise AntiphonError(
            f"Stage {stage.name} of {folder} has {entry.parameters:,} weights, "
            f"the checkpoint's has {parameters:,}; {ADVICE}"
        )


def _interface(stage: Stage) -> Interface:
    """What the engine of `stage` takes and gives."""
    interface = stage.interface
    return {"input": interface.inputs, "output": interface.outputs, "state": interface.states}


def _shapes(specs: Iterable[TensorSpec | StateSpec]) -> dict[str, str]:
    return {spec.name: f"shape {list(spec.shape)} ({spec.dtype})" for spec in specs}


def _stages(names: set[str]) -> str:
    return f"the stage{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"
